"""How long to wait while Redis is unavailable: longer each time, and never all workers at once."""

import asyncio
import random

from redis.exceptions import RedisError, ResponseError

# What a client meets while a server restarts, fails over, is full or is partitioned. redis-py wraps most of it in
# RedisError; sockets and time limits raise their own.
TRANSIENT_REDIS_ERRORS = (RedisError, OSError, TimeoutError)
_FIRST_S = 0.05
_LONGEST_S = 5.0


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


_SERVER_STATES = (
    "LOADING", "READONLY", "OOM", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MASTERDOWN",
)  # fmt: skip


def is_transient(error: ResponseError) -> bool:
    """Whether the refusal is about the server's own state, not about what was sent.

    redis-py cuts the word off the message of those errors that it has a class for, and keeps it as `status_code`.
    """
    return error.status_code in _SERVER_STATES or str(error).partition(" ")[0] in _SERVER_STATES
