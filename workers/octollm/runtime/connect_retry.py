"""Waits for Redis or Postgres.

It reports the first failure at once, says what to do, and retries with a backoff.

How to connect is passed in.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import structlog

from octollm.errors import OctoError, StoreRefusedError
from octollm.observability.logging import without_passwords

_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 10.0

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
    """Return what `connect` returns as soon as it succeeds; None if `stop` is set first.

    `name`: of the product, for reports. `report` receives each sentence; by default it is logged as a warning. Raises
    StoreRefusedError: waiting does not help against a wrong password.
    """
    send_report = report or structlog.get_logger(__name__).warning
    delay_s = _FIRST_DELAY_S
    failed = False
    while not stop.is_set():
        try:
            connected = await connect()
        except StoreRefusedError:
            raise
        except (OSError, TimeoutError, OctoError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            failed = True
            send_report(
                f"{name} at {without_passwords(address)} cannot be used ({cause(error)}); "
                f"{ADVICE.get(name, 'start it')}; next attempt in {delay_s:.1f} s"
            )
        else:
            if failed:
                send_report(f"{name} at {without_passwords(address)} can be used now")
            return connected
        try:
            # Jitter: workers that lost the same server must not all return at the same moment.
            await asyncio.wait_for(stop.wait(), delay_s * random.uniform(0.5, 1.0))  # noqa: S311 (no secret)
        except TimeoutError:
            delay_s = min(delay_s * 2, _MAX_DELAY_S)
    return None


def cause(error: BaseException) -> str:
    """Return the first line of an error's message, without credentials, or its type's name."""
    text = str(error).strip().splitlines()
    return without_passwords(text[0]) if text else type(error).__name__
