"""What a process does while Redis or Postgres is not there: say so, say what to do, try again.

Owns the message and the pauses between tries. How to connect is passed in.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import structlog

from octollm.errors import OctoError
from octollm.observability.logging import without_passwords

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0

Connected = TypeVar("Connected")

ADVICE = {
    "Redis": "start it, or set OCTOLLM_REDIS_URL (redis.url) to the server to use",
    "Postgres": "start it, or set OCTOLLM_POSTGRES_DSN (postgres.dsn) to the server to use",
}


async def until_reachable(
    name: str,
    address: str,
    connect: Callable[[], Awaitable[Connected]],
    stop: asyncio.Event,
    report: Callable[[str], None] | None = None,
) -> Connected | None:
    """What `connect` returns as soon as it succeeds; None when `stop` is set first.

    The first failure is reported at once, later ones with growing pauses; never a stack trace. `report` takes
    the sentence; without it it is logged as a warning.
    """
    tell = report or structlog.get_logger(__name__).warning
    pause = _FIRST_PAUSE_S
    failed = False
    while not stop.is_set():
        try:
            connected = await connect()
        except (OSError, TimeoutError, OctoError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            failed = True
            tell(
                f"{name} at {without_passwords(address)} cannot be used ({cause(error)}); "
                f"{ADVICE.get(name, 'start it')}; trying again in {pause:.1f} s"
            )
        else:
            if failed:
                tell(f"{name} at {without_passwords(address)} is there now")
            return connected
        try:
            # Jitter: workers that lost the same server must not all come back in the same instant.
            await asyncio.wait_for(stop.wait(), pause * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
        except TimeoutError:
            pause = min(pause * 2, _LONGEST_PAUSE_S)
    return None


def cause(error: BaseException) -> str:
    """One line about an error, without credentials."""
    text = str(error).strip().splitlines()
    return without_passwords(text[0]) if text else type(error).__name__
