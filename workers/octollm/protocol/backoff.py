"""Which errors of Redis pass, and how long to wait for that.

Longer each time, and never all workers at once.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog
from redis.exceptions import AuthenticationError, DataError, RedisError, ResponseError

from octollm.errors import StoreRefusedError, StoreUnavailableError

REDIS_FAILURES = (RedisError, OSError, TimeoutError)
"""What a call may raise: redis-py wraps most in RedisError; sockets and time limits raise their own.

Not all of it passes with time: ask `is_transient`, or call `raise_if_refused`, before trying again.
"""
_FIRST_S = 0.05
_LONGEST_S = 5.0
_log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")


class Backoff:
    """The delays of one loop: doubled from 50 ms to 5 s, with jitter."""

    def __init__(self) -> None:
        self._next_s = _FIRST_S

    def reset(self) -> None:
        """Begin with the shortest delay again; call it after a success."""
        self._next_s = _FIRST_S

    def next_delay_s(self) -> float:
        """Return the seconds to wait now, and double the next delay."""
        delay = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, keeps no secret
        self._next_s = min(self._next_s * 2, _LONGEST_S)
        return delay

    async def wait(self) -> None:
        """Sleep for the next delay."""
        await asyncio.sleep(self.next_delay_s())


SERVER_STATES = frozenset({
    "ASK", "BUSY", "CLUSTERDOWN", "EXECABORT", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOGROUP", "NOREPLICAS",
    "NOSCRIPT", "OOM", "READONLY", "TRYAGAIN", "UNBLOCKED",
})  # fmt: skip
"""Error codes that are about the server's state, not about the command. They pass with time.

`NOGROUP`: a consumer group does not exist; its readers create it again.

`crates/bus/src/error.rs` holds the same ones; `tests/contract/test_redis_errors.py` compares them.
"""


def error_code(error: ResponseError) -> str:
    """Return the first word of Redis' answer, such as `WRONGTYPE`; its other words decide nothing.

    redis-py cuts the word off the message of those errors that it has a class for, and keeps it as `status_code`.
    """
    return error.status_code or str(error).partition(" ")[0]


def is_transient(error: Exception) -> bool:
    """Whether the same call can succeed later.

    `error`: one of `REDIS_FAILURES`. It does not pass where Redis or the client refuses what is sent, or the login.
    """
    if isinstance(error, ResponseError):
        return error_code(error) in SERVER_STATES
    return not isinstance(error, (AuthenticationError, DataError))  # DataError: redis-py cannot encode an argument


def raise_if_refused(error: Exception, what: str) -> None:
    """Raise StoreRefusedError with the error as its cause unless it is transient.

    `what`: what Redis was asked to do, as a verb phrase for the message.
    """
    if not is_transient(error):
        raise StoreRefusedError(f"Redis refuses to {what}: {error}") from error


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Raise StoreUnavailableError or StoreRefusedError for what Redis or the way to it raises."""
    try:
        yield
    except REDIS_FAILURES as error:
        kind = StoreUnavailableError if is_transient(error) else StoreRefusedError
        raise kind(f"Redis: {error}") from error


async def until_answered(call: Callable[[], Awaitable[Answer]], what: str) -> Answer:
    """Return what `call` returns, repeating it with a backoff while its error is transient.

    `what`: what Redis is asked to do, as a verb phrase for messages. Raises StoreRefusedError.
    """
    backoff = Backoff()
    while True:
        try:
            return await call()
        except (*REDIS_FAILURES, RuntimeError) as error:  # uvloop's, for a connection that broke a moment ago
            raise_if_refused(error, what)
            _log.warning(f"cannot {what}, trying again", error=str(error))
        await backoff.wait()
