"""Submits scheduled tasks, once per due time, however many orchestrators run.

Postgres' clock decides.

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
        """Next due time by schedule; the schedule's row is not read before."""
        self._has_begun = False

    async def run(self) -> None:
        """Submit what is due now. Raises StoreUnavailableError while Postgres is unavailable."""
        if self._schedules or not self._has_begun:
            async with transaction(self._pool) as connection:
                now = await connection.fetchval(_SQL["now"])
            await self.tick(now)

    async def tick(self, now: datetime) -> int:
        """Submit what is due at `now`, the database's time; return how many.

        A schedule that cannot be submitted is logged and tried again with the next call; the others are not concerned.
        Raises StoreUnavailableError while Postgres is unavailable at the first call.
        """
        if not self._has_begun:
            async with transaction(self._pool) as connection:
                await connection.execute(_SQL["delete_others"], [schedule.name for schedule in self._schedules])
            self._has_begun = True
        submitted = 0
        for schedule in self._schedules:
            if now < self._next_due.get(schedule.name, now):
                continue
            try:
                submitted += await self._submit_due(schedule, now)
            except Exception as error:  # noqa: BLE001  the other schedules go on, whatever this one meets
                _log.warning("a schedule cannot be submitted, trying again", schedule=schedule.name, error=str(error))
                continue
            following = schedule.following(now)
            self._next_due[schedule.name] = following[0] if following else datetime.max.replace(tzinfo=UTC)
        return submitted

    async def _submit_due(self, schedule: Schedule, now: datetime) -> bool:
        due = schedule.latest(now)
        identity = (schedule.name, schedule.cron, schedule.zone.key)
        async with transaction(self._pool) as connection:
            if await connection.fetchval(_SQL["insert_or_replace"], *identity, due, now):
                # New or changed: due times before that do not count. One that has come while this process waited for it
                # does, although another orchestrator or a person has deleted or changed the row meanwhile.
                if due is None or schedule.name not in self._next_due:
                    return False
                await connection.execute(_SQL["set_submitted"], schedule.name)
            elif due is None or not await connection.fetchval(_SQL["advance"], *identity, due):
                return False
            await self._submit(schedule.tenant, schedule.body, f"schedule:{schedule.name}:{as_text(due)}")
        _log.info("scheduled task submitted", schedule=schedule.name, tenant=schedule.tenant, due=as_text(due))
        return True
