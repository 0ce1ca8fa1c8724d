"""What both clients share with httpx: its settings, its replies and its errors."""

import ipaddress
from typing import TypedDict
from urllib.parse import urlsplit

import httpx

from octollm.client.replies import Reply
from octollm.client.talk import Ask
from octollm.errors import UnreachableError

FAULTS = (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError)
# A stream that sends nothing for so long, not even a comment, is dead.
_STREAM_TIMEOUT = httpx.Timeout(10, read=60).as_dict()
_NAME = {"User-Agent": "octollm-client"}


class Options(TypedDict):
    """Of httpx.Client and httpx.AsyncClient."""

    timeout: float
    trust_env: bool


def options(url: str) -> Options:
    """A proxy of the environment is for the world outside; a loopback address is never behind it."""
    return {"timeout": 30.0, "trust_env": not _loopback(url)}


def reply_of(url: str, response: httpx.Response, content: bytes) -> Reply:
    """Ours from httpx's."""
    return Reply(url, response.status_code, {name.lower(): text for name, text in response.headers.items()}, content)


def request_of(url: str, ask: Ask, *, stream: bool = False) -> httpx.Request:
    """httpx's from ours."""
    return httpx.Request(
        ask.method,
        f"{url}{ask.path}",
        params=ask.params,
        headers={**_NAME, **ask.headers},
        content=ask.content,
        extensions={"timeout": _STREAM_TIMEOUT} if stream else {},
    )


def unreachable(url: str, error: Exception) -> UnreachableError:
    """One sentence for what httpx says."""
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError(f"the reflex at {url} did not answer in time; is it overloaded?")
    why = str(error) or type(error).__name__
    return UnreachableError(
        f"the reflex at {url} cannot be reached ({why}); start the stack with `octollm up`, "
        "or set OCTOLLM_REFLEX_URL to where it listens"
    )


def _loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False  # no address at all, which is said with the first request
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
