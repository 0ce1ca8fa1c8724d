"""Asks the stores of a process whether they answer.

Readiness turns red within two seconds when one hangs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import asyncpg
import structlog

from octollm.database.pool import Connection
from octollm.runtime.connect_retry import cause
from octollm.supervision import Supervisor

Check = Callable[[], Awaitable[object]]
"""Raises if the store does not answer."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a store is checked.

    Both times together stay below the two seconds after which readiness must be red.
    """

    pause_s: float
    """Time between two checks."""
    timeout_s: float


ASKS = Pace(0.7, 0.9)
"""For a check that sends a request of its own."""
LISTENS = Pace(0.2, 1.7)
"""For a check that waits for an answer to what this process asks at least once a second anyway."""
_BLOCKED_S = 0.3
"""A check that takes this much longer than its timeout tells about this process, not about the store."""
_log = structlog.get_logger(__name__)


class StoreWatch:
    """One loop per store, each owned by the supervisor."""

    def __init__(self, checks: Mapping[str, tuple[Check, Pace]]) -> None:
        """`checks`: by the store's name."""
        self._checks = checks
        self._failures: dict[str, str] = {}

    def start(self, supervisor: Supervisor) -> None:
        """Begin to watch."""
        for store, (check, pace) in self._checks.items():
            supervisor.spawn_loop(f"watch {store}", self._run(store, check, pace))

    def reasons(self) -> list[str]:
        """Return a sentence for each store that does not answer. Any thread may ask."""
        return list(self._failures.copy().values())

    async def _run(self, store: str, check: Check, pace: Pace) -> None:
        while True:
            await self._look(store, check, pace.timeout_s)
            await asyncio.sleep(pace.pause_s)

    async def _look(self, store: str, check: Check, timeout_s: float) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(timeout_s):
                await check()
        except Exception as error:  # noqa: BLE001  whatever it raises, the store has not answered
            if isinstance(error, TimeoutError) and clock() - began > timeout_s + _BLOCKED_S:
                return
            reason = f"no answer within {timeout_s} s" if isinstance(error, TimeoutError) else cause(error)
            if store not in self._failures:
                _log.warning("a store does not answer; this process is not ready", store=store, error=reason)
            self._failures[store] = f"{store} is unavailable: {reason}"
        else:
            if self._failures.pop(store, None) is not None:
                _log.info("a store answers again", store=store)


class PostgresCheck:
    """Asks Postgres over a connection of its own: a busy pool is no reason not to be ready."""

    def __init__(self, dsn: str) -> None:
        """`dsn`: the address. Connects with the first check."""
        self._dsn = dsn
        self._connection: Connection | None = None

    async def __call__(self) -> None:
        """Raise if Postgres does not answer a statement."""
        try:
            if self._connection is None:
                self._connection = await asyncpg.connect(self._dsn, server_settings={"application_name": "octollm"})
            await self._connection.execute("SELECT 1")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection without waiting for the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
