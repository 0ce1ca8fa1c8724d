"""Sends one callback over HTTP, to an address that was checked before.

No proxy, no redirect, no cookie, no connection of an earlier request; of the answer, the status and the first bytes.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus

import httpx2
import orjson

from octollm.callbacks.outcomes import Outcome, Result
from octollm.callbacks.target import Target
from octollm.resources import rules_path

_SAMPLE_BYTES = 1024
_SAMPLE_S = 2.0
"""Time limit for the beginning of the body, once the status is known."""
_HEADERS = {"Content-Type": "application/json", "User-Agent": "OctoLLM", "Accept-Encoding": "identity"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class HttpSender:
    """Sends callbacks. Use it as a context manager or call `close`."""

    def __init__(self, timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
        """`timeout_s`: for each read and write.

        `tls`: which certificates are trusted, by default the system's.
        """
        self._http = httpx2.AsyncClient(
            verify=tls or ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_s,
            # A kept connection belongs to an address, and another name may have the same address.
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes, until: float) -> Result:
        """Send `body` and return what came of it.

        Raises TimeoutError if there is no status at `until`, a time of the event loop. The addresses are tried
        in turn until a connection succeeds.
        """
        error: Exception | None = None
        for address in target.addresses:
            try:
                async with asyncio.timeout_at(until):
                    response = await self._http.send(self._request(target, address, headers, body), stream=True)
            except httpx2.ConnectError as failure:
                error = failure
            except httpx2.TimeoutException as failure:
                raise TimeoutError from failure
            except httpx2.TransportError as failure:
                return Result(Outcome.UNREACHABLE, detail=_cause(failure))
            else:
                try:
                    return _result(response, await _sample(response))
                finally:
                    await response.aclose()
        return Result(Outcome.UNREACHABLE, detail=_cause(error))

    def _request(self, target: Target, address: str, headers: Mapping[str, str], body: bytes) -> httpx2.Request:
        host = f"[{address}]" if ":" in address else address
        return self._http.build_request(
            "POST",
            f"{target.url.scheme}://{host}:{target.url.port}{target.url.target}",
            content=body,
            headers={**_HEADERS, **headers, "Host": target.url.authority},
            # The certificate has to be the name's.
            extensions={"sni_hostname": target.url.host},
        )


async def _sample(response: httpx2.Response) -> str | None:
    """Return the beginning of the body. What the receiver sends after it, or how slowly, changes nothing."""
    sample = b""
    try:
        async with asyncio.timeout(_SAMPLE_S):
            async for chunk in response.aiter_raw():
                sample += chunk[: _SAMPLE_BYTES - len(sample)]
                if len(sample) >= _SAMPLE_BYTES:
                    break
    except (TimeoutError, httpx2.TransportError):
        pass
    return shown(sample) or None


def shown(sample: bytes) -> str:
    """Return bytes of a receiver as text without control characters and without what looks like a secret."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", sample.decode("utf-8", "replace"))
    for pattern in _secrets():
        text = pattern.sub("[secret]", text)
    return text


@cache
def _secrets() -> tuple[re.Pattern[str], ...]:
    rules = orjson.loads((rules_path() / "secrets.json").read_bytes())["rules"]
    return (*(re.compile(rule["pattern"]) for rule in rules), re.compile(r"whsec_[A-Za-z0-9+/=]{8,100}"))


def _result(response: httpx2.Response, sample: str | None) -> Result:
    status = response.status_code
    if response.is_success:
        return Result(Outcome.DELIVERED, status, response=sample)
    if status == HTTPStatus.GONE:
        return Result(Outcome.GONE, status, "the receiver answered 410: it wants no more callbacks", sample)
    detail = f"the receiver answered {status}"
    if response.is_redirect:
        detail += "; redirects are not followed, name the final URL"
    return Result(Outcome.REFUSED, status, detail, sample, _retry_after_s(response.headers.get("retry-after")))


def _retry_after_s(value: str | None) -> float | None:
    """Return the seconds in the header `Retry-After`, which may also be a date; None if it is neither."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        until = parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _cause(error: Exception | None) -> str:
    text = str(error) if error is not None else ""
    return text[:500] or type(error).__name__
