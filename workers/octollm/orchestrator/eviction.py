"""Keeps Redis below its memory limit: what only describes finished tasks leaves early, oldest first.

Postgres has all of it, and the API answers from there. Nothing that is in flight is touched. So Redis refuses new tasks
only when it is full of tasks that have not ended.
"""

from collections import defaultdict
from datetime import UTC, datetime

import structlog

from octollm.contracts.ids import lane_of
from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.orchestrator.publisher import Publisher

_SQL = queries("octollm.orchestrator", "retention")
_START_SHARE = 0.6
"""Share of `maxmemory` above which statuses are evicted."""
_STOP_SHARE = 0.5
_MIN_AGE_S = 10.0
"""Clients that wait for a task have seen its end by then."""
_LIMIT = 500
"""Tasks of one query and, by lane, one script call."""
_PAST = datetime(1970, 1, 1, tzinfo=UTC)
_log = structlog.get_logger(__name__)


class Eviction:
    """Any number of processes may evict at the same time."""

    def __init__(self, pool: Pool, publisher: Publisher, status_ttl_s: int) -> None:
        """`status_ttl_s`: age at which Redis itself removes the status of a finished task."""
        self._pool = pool
        self._publisher = publisher
        self._status_ttl_s = status_ttl_s
        self._after = (_PAST, "")
        """End and id of the last task whose status was evicted."""

    async def run(self) -> int:
        """Evict statuses if Redis is running full; return how many were evicted.

        Raises StoreUnavailableError while Redis or Postgres is unavailable.
        """
        if await self._publisher.memory_share() < _START_SHARE:
            return 0
        total = 0
        while await self._publisher.memory_share() > _STOP_SHARE:
            tasks = await self._next_tasks()
            if not tasks:
                await self._publisher.trim_events()
                break
            by_lane: defaultdict[str, list[str]] = defaultdict(list)
            for task in tasks:
                by_lane[lane_of(task)].append(task)
            for lane, of_lane in by_lane.items():
                total += await self._publisher.evict(lane, of_lane)
        if total:
            _log.warning("evicted the statuses of finished tasks: Redis is running full", statuses=total)
        return total

    async def _next_tasks(self) -> list[str]:
        """Return the finished tasks that follow the last returned one, by the time of their end."""
        async with transaction(self._pool) as connection:
            found = await connection.fetch(
                _SQL["finished_after"], *self._after, float(self._status_ttl_s), _MIN_AGE_S, _LIMIT
            )
        if found:
            self._after = found[-1]["finished_at"], found[-1]["id"]
        return [row["id"] for row in found]
