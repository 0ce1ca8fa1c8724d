"""Submits scheduled tasks, once per due time, however many orchestrators run.

The schedule's row is locked while its task is submitted and records the last due time. After a crash in between, the
task is submitted again under the same idempotency key, which makes it the same task.
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
Submit = Callable[[str, bytes, str], Awaitable[None]]
"""Puts a submission on a tenant's ingest stream: tenant, body, idempotency key. May raise StoreUnavailableError."""


class Scheduler:
    """Submits the tasks of all schedules of `schedules.yaml`."""

    def __init__(self, schedules: Sequence[Schedule], pool: Pool, submit: Submit) -> None:
        self._schedules = schedules
        self._pool = pool
        self._submit = submit
        self._next_due: dict[str, datetime] = {}
        """Next due time by schedule; the database is not asked before."""

    async def tick(self, now: datetime) -> int:
        """Submit what is due at `now`; return how many. Raises StoreUnavailableError while a store is unavailable."""
        submitted = 0
        for schedule in self._schedules:
            if now < self._next_due.get(schedule.name, now):
                continue
            submitted += await self._submit_due(schedule, schedule.latest(now))
            following = schedule.following(now)
            self._next_due[schedule.name] = following[0] if following else datetime.max.replace(tzinfo=UTC)
        return submitted

    async def _submit_due(self, schedule: Schedule, due: datetime | None) -> bool:
        identity = (schedule.name, schedule.cron, schedule.zone.key)
        async with transaction(self._pool) as connection:
            if await connection.fetchval(_SQL["insert_or_replace"], *identity, due):
                return False  # new or changed: due times before that do not count
            if due is None or not await connection.fetchval(_SQL["advance"], *identity, due):
                return False
            await self._submit(schedule.tenant, schedule.body, f"schedule:{schedule.name}:{as_text(due)}")
        _log.info("scheduled task submitted", schedule=schedule.name, tenant=schedule.tenant, due=as_text(due))
        return True
