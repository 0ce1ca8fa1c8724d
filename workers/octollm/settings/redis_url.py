"""The address of Redis as Python's client takes it."""

from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

from octollm.errors import SettingsError
from octollm.settings.sections import RedisSettings


def redis_url(redis: RedisSettings) -> str:
    """Return the URL that Python's Redis client takes, with the file of certificates where one is set.

    Raises SettingsError if that file cannot be used.
    """
    if not redis.ca_file:
        return redis.url
    url = urlsplit(redis.url)
    if url.scheme != "rediss":
        raise SettingsError("setting redis.ca_file is refused: must be empty unless redis.url starts with rediss://")
    try:
        readable = "-----BEGIN CERTIFICATE-----" in Path(redis.ca_file).read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise SettingsError(f"setting redis.ca_file is refused: {redis.ca_file} cannot be read ({error})") from error
    if not readable:
        raise SettingsError(f"setting redis.ca_file is refused: {redis.ca_file} holds no certificate in PEM")
    query = "&".join(filter(None, (url.query, urlencode({"ssl_ca_certs": redis.ca_file}))))
    return urlunsplit(url._replace(query=query))
