"""Deletes what memory holds about tasks. Retention needs it before it deletes the tasks themselves."""

from collections.abc import Sequence

from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.memory import graph
from octollm.memory.documents import Documents

_SQL = queries("octollm.memory", "index")


async def delete_task_memory(pool: Pool, documents: Documents, tasks: Sequence[str]) -> None:
    """Delete the tasks' documents with passages and vectors, artifacts, and graph rows of their own.

    Idempotent: a second call completes an interrupted one. Raises StoreUnavailableError when a store is unavailable;
    the tasks themselves must not be deleted then.
    """
    async with transaction(pool) as connection:
        rows = await connection.fetch(_SQL["documents_of"], tasks)
    for row in rows:
        await documents.delete(row["tenant"], row["collection"], row["name"])
    async with transaction(pool) as connection:
        await graph.delete_statements(connection, tasks)
        await connection.execute(_SQL["delete_artifacts"], tasks)


async def delete_marked(pool: Pool, documents: Documents, limit: int) -> int:
    """Delete the memory of up to `limit` tasks marked for the purge, and return how many there were.

    Sets `tasks.memory_deleted_at`, after which the rows of the tasks can be deleted.
    """
    async with transaction(pool) as connection:
        tasks = [row["id"] for row in await connection.fetch(_SQL["marked_for_purge"], limit)]
    if tasks:
        await delete_task_memory(pool, documents, tasks)
        async with transaction(pool) as connection:
            await connection.execute(_SQL["set_memory_deleted"], tasks)
    return len(tasks)
