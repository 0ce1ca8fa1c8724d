"""The form of a callback's URL. Pure: names are resolved when the callback is sent.

`task.submission.v1` has the same pattern, which the reflex checks before it accepts a task.
"""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

PATTERN = r"^https?://[A-Za-z0-9._:\[\]-]{1,260}([/?][A-Za-z0-9._~:/?@!$&()*+,;=%\[\]-]{0,1700})?$"
_FORM = re.compile(PATTERN.removeprefix("^").removesuffix("$"))
_NAME = re.compile(r"(?=.{1,254}$)([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
"""What the system's resolver takes: labels of 1 to 63 characters (RFC 1035, section 2.3.4)."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class CallbackUrl(NamedTuple):
    """A URL taken apart. Only its host is not yet known to be harmless."""

    scheme: str
    """`http` or `https`."""
    host: str
    """A name, or an address without brackets; in lower case."""
    port: int
    target: str
    """Path and query, never empty."""

    @property
    def authority(self) -> str:
        """What the header `Host` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def endpoint(self) -> str:
        """The URL without its query: what receives the callbacks of one sender."""
        return f"{self.scheme}://{self.authority}{self.target.partition('?')[0]}"


def parse_callback_url(text: str) -> CallbackUrl:
    """Take a URL apart. Raises ValueError, which does not quote the URL: its query may contain a secret."""
    if not _FORM.fullmatch(text):
        raise ValueError("must be a URL like https://example.com/path, without user, fragment or blanks")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("must have a host, and a port from 1 to 65535 or none") from error
    if not host or port == 0:
        raise ValueError("must have a host, and a port from 1 to 65535 or none")
    if ":" not in host and not _NAME.fullmatch(host):
        raise ValueError("must have a host whose labels have 1 to 63 characters each")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return CallbackUrl(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme], target)
