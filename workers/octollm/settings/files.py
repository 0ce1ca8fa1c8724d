"""Choose the files that settings name: the configured one, else the one that ships with OctoLLM."""

from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

from octollm.errors import SettingsError
from octollm.resources import share_dir
from octollm.settings.loader import Settings
from octollm.settings.sections import RedisSettings


def topology_path(settings: Settings) -> Path:
    """The topology file to load: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.topology.file) if settings.topology.file else share_dir() / "streams.yaml"


def webhooks_path(settings: Settings) -> Path:
    """The file of webhook sources: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.webhooks.file) if settings.webhooks.file else share_dir() / "webhooks.yaml"


def schedules_path(settings: Settings) -> Path:
    """The file of schedules: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.schedules.file) if settings.schedules.file else share_dir() / "schedules.yaml"


def recipes_path(settings: Settings) -> Path:
    """The folder of recipes: the configured one, or the one that ships with OctoLLM."""
    configured = settings.orchestrator.recipes_dir
    return Path(configured) if configured else share_dir() / "recipes"


def redis_url(redis: RedisSettings) -> str:
    """The URL that Python's Redis client takes, with the file of certificates where one is set.

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
