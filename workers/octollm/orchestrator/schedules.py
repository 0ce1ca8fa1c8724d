"""Submits what is due by the clock, each due time once, however many orchestrators look.

The row of a schedule is locked while its task is submitted, and says which time was the last. After a crash in between
it is submitted again, under the same idempotency key, which makes it the same task.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog

from octollm.contracts.ids import as_text
from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.topology.schedules import Schedule

_SQL = queries("octollm.orchestrator", "schedules")
_log = structlog.get_logger(__name__)
Submit = Callable[[Schedule, str], Awaitable[None]]
"""Puts the schedule's submission on its tenant's ingest stream, under an idempotency key. May raise
StoreUnavailableError.
"""


class Clockwork:
    """One process's look at the clock."""

    def __init__(self, schedules: Sequence[Schedule], pool: Pool, submit: Submit) -> None:
        self._schedules = schedules
        self._pool = pool
        self._submit = submit
        self._next: dict[str, datetime] = {}
        """When a schedule is to be looked at again; before that nothing can be due."""

    async def look(self, now: datetime) -> int:
        """Submit what is due at `now`; return how many. Raises StoreUnavailableError while a store is unavailable."""
        submitted = 0
        for schedule in self._schedules:
            if now < self._next.get(schedule.name, now):
                continue
            submitted += await self._fire(schedule, schedule.latest(now))
            following = schedule.following(now)
            self._next[schedule.name] = following[0] if following else datetime.max.replace(tzinfo=UTC)
        return submitted

    async def _fire(self, schedule: Schedule, due: datetime | None) -> bool:
        about = (schedule.name, schedule.cron, schedule.zone.key)
        async with transaction(self._pool) as connection:
            if await connection.fetchval(_SQL["begin"], *about, due):
                return False  # new, or changed: what was due before that is none of its business
            if due is None or not await connection.fetchval(_SQL["advance"], *about, due):
                return False
            await self._submit(schedule, f"schedule:{schedule.name}:{as_text(due)}")
        _log.info("a schedule is due", schedule=schedule.name, tenant=schedule.tenant, due=as_text(due))
        return True
