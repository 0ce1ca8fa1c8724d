"""How long to wait while Redis is in trouble: longer each time, and never all workers at once."""

import asyncio
import random

from redis.exceptions import RedisError

# What a client meets while a server restarts, fails over, is full or is partitioned. redis-py wraps most of it in
# RedisError; sockets and time limits come as they are.
TRANSIENT_REDIS_ERRORS = (RedisError, OSError, TimeoutError)
_FIRST_S = 0.05
_LONGEST_S = 5.0


class Backoff:
    """One loop's pauses; `over` after a success."""

    def __init__(self) -> None:
        self._next_s = _FIRST_S

    def over(self) -> None:
        """It worked again."""
        self._next_s = _FIRST_S

    def take_s(self) -> float:
        """Seconds to wait now; the next ones are longer."""
        pause = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, keeps no secret
        self._next_s = min(self._next_s * 2, _LONGEST_S)
        return pause

    async def wait(self) -> None:
        """Wait that long."""
        await asyncio.sleep(self.take_s())
