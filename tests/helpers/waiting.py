"""Waiting for a state that must come. A test polls a condition instead of sleeping for a time that should suffice."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

TIMEOUT_S = 60
POLL_S = 0.02

T = TypeVar("T")


async def until(condition: Callable[[], Awaitable[T | None]], what: str = "", within_s: float = TIMEOUT_S) -> T:
    """Poll `condition` until its answer is true and return that answer.

    Fails the test after `within_s` seconds and names `what`, or the condition itself, in the message.
    """
    limit = asyncio.timeout(within_s)
    try:
        async with limit:
            while not (found := await condition()):
                await asyncio.sleep(POLL_S)
            return found
    except TimeoutError:
        if not limit.expired():
            raise  # the condition's own
        raise AssertionError(_late(what or str(condition), within_s)) from None


def until_sync(condition: Callable[[], T | None], what: str, within_s: float = TIMEOUT_S) -> T:
    """Do the same as `until` for a test without an event loop."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(POLL_S)
    raise AssertionError(_late(what, within_s))


def _late(what: str, within_s: float) -> str:
    return f"{what} did not happen within {within_s} s"
