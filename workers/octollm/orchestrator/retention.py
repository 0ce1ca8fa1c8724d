"""Work that remains for finished tasks.

It republishes results that memory has not indexed, and deletes old tasks.

A task is deleted in three steps, each of which survives a crash: the task is marked (`purge_requested_at`), memory
deletes its own data and records that (`memory_deleted_at`, see `octollm.memory.deletion`), then the rows are deleted.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.orchestrator import rows
from octollm.orchestrator.state import TaskState

_SQL = queries("octollm.orchestrator", "retention")
_FAR_FUTURE = datetime(9999, 1, 1, tzinfo=UTC)


async def results_not_indexed(
    pool: Pool, older_than_s: float, oldest_queued: datetime | None, limit: int
) -> Sequence[TaskState]:
    """Return up to `limit` tasks whose result was published `older_than_s` ago and is still not indexed.

    `oldest_queued`: arrival of the oldest message on `results`, None if it is empty. Results published later may still
    be queued and are left out. Each returned task counts as published now; the next time comes twice as late.
    """
    async with transaction(pool) as connection:
        found = await connection.fetch(
            _SQL["results_not_indexed"], older_than_s, oldest_queued or _FAR_FUTURE, limit
        )  # fmt: skip
    return [rows.state_of(row, {}) for row in found]


async def purge(pool: Pool, days: int, limit: int, *, memory: bool) -> bool:
    """Delete up to `limit` old tasks, dead letters of no task, and unused outputs.

    Old are those that ended more than `days` ago.

    `memory`: a memory worker exists, which deletes its data of a task first. Return whether there may be more.
    """
    async with transaction(pool) as connection:
        marked = await connection.execute(_SQL["mark_for_purge"], days, limit)
    async with transaction(pool) as connection:
        tasks = [row["id"] for row in await connection.fetch(_SQL["purge_candidates"], memory, limit)]
        for query in ("delete_dead_letters", "delete_cancel_requests", "delete_tasks"):
            await connection.execute(_SQL[query], tasks)
    async with transaction(pool) as connection:
        outputs = await connection.execute(_SQL["delete_unused_outputs"], days, limit)
        dead_letters = await connection.execute(_SQL["delete_dead_letters_of_no_task"], days, limit)
        await connection.execute(_SQL["delete_unused_endpoints"], days)
    return limit in (_row_count(marked), len(tasks), _row_count(outputs), _row_count(dead_letters))


def _row_count(command_tag: str) -> int:
    """Return the number of rows from what Postgres answers to a command, for example `DELETE 5`."""
    return int(command_tag.rpartition(" ")[2])
