"""Settings of the HTTP connections of both clients."""

import ipaddress
from typing import TypedDict
from urllib.parse import urlsplit

import httpx2

from octollm.client.credentials import Bearer, Credential

# The server sends a comment at least every 15 s; a stream that is silent for longer than this is dead.
STREAM_TIMEOUT = httpx2.Timeout(10, read=60)


class Options(TypedDict):
    """Arguments of httpx2.Client and httpx2.AsyncClient."""

    timeout: float
    headers: dict[str, str]
    trust_env: bool
    verify: bool
    auth: Bearer | None


def options(url: str, credential: Credential | None) -> Options:
    """Return the arguments for a client of the reflex at `url` that sends `credential`."""
    return {
        "timeout": 30.0,
        "headers": {"User-Agent": "octollm-client"},
        "trust_env": not _is_loopback(url),  # a proxy never leads to a loopback address
        "verify": not url.startswith("http:"),  # without TLS, loading the certificates would be wasted time
        "auth": None if credential is None else Bearer(credential),
    }


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False  # an invalid address; the first request says so
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
