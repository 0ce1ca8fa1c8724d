"""Work that remains for finished tasks: republish results that memory has not indexed, and delete old tasks.

A task is deleted in three steps, each of which survives a crash: the task is marked (`purge_requested_at`), memory
deletes its own data and records that (`memory_deleted_at`, see `octollm.memory.deletion`), then the rows are deleted.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from octollm.contracts import TaskResult
from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.orchestrator.messages import Outgoing

_SQL = queries("octollm.orchestrator", "retention")
_FAR = datetime(9999, 1, 1, tzinfo=UTC)


async def unremembered(pool: Pool, older_than_s: float, oldest: datetime | None, most: int) -> Sequence[Outgoing]:
    """Up to `most` results to send again: memory should have taken them for longer than `older_than_s`.

    `oldest`: when the oldest result was sent that still waits for memory; None: none does. What was sent after that may
    be waiting, too, and is left alone.
    """
    async with transaction(pool) as connection:
        found = await connection.fetch(_SQL["unremembered"], older_than_s, oldest or _FAR, most)
    return [Outgoing(traceparent=row["traceparent"], result=TaskResult.model_validate(row["result"])) for row in found]


async def purge(pool: Pool, days: int, most: int, *, memory: bool) -> bool:
    """Delete up to `most` tasks that ended more than `days` ago, and letters of no task; whether there may be more now.

    `memory`: there is one, which has to forget a task before its rows go.
    """
    async with transaction(pool) as connection:
        marked = await connection.execute(_SQL["mark_for_purge"], days, most)
    async with transaction(pool) as connection:
        tasks = [row["id"] for row in await connection.fetch(_SQL["doomed"], memory, most)]
        for query in ("purge_letters", "purge_requests", "purge_tasks"):
            await connection.execute(_SQL[query], tasks)
    async with transaction(pool) as connection:
        outputs = await connection.execute(_SQL["purge_outputs"], days, most)
        letters = await connection.execute(_SQL["purge_stray_letters"], days, most)
    return most in (_count(marked), len(tasks), _count(outputs), _count(letters))


def _count(status: str) -> int:
    """Rows, from what Postgres says of a command: `DELETE 5`."""
    return int(status.rpartition(" ")[2])
