"""Takes out of memory what tasks left there: for the purge of old tasks, before their rows go."""

from collections.abc import Sequence

from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.memory import graph
from octollm.memory.documents import Documents

_SQL = queries("octollm.memory", "index")


async def forget_tasks(pool: Pool, documents: Documents, tasks: Sequence[str]) -> None:
    """Their documents with passages and vectors, their artifacts, and what of the graph they alone say.

    Doing it again finishes what was cut short. Raises StoreUnavailableError while a store is away; then delete no task
    yet.
    """
    async with transaction(pool) as connection:
        left = await connection.fetch(_SQL["documents_of"], tasks)
    for row in left:
        await documents.forget(row["tenant"], row["collection"], row["name"])
    async with transaction(pool) as connection:
        await graph.forget(connection, tasks)
        await connection.execute(_SQL["forget_artifacts"], tasks)


async def forget_marked(pool: Pool, documents: Documents, most: int) -> int:
    """Forget up to `most` tasks that are marked for the purge and say so in their rows, which may go then; how many."""
    async with transaction(pool) as connection:
        tasks = [row["id"] for row in await connection.fetch(_SQL["to_forget"], most)]
    if tasks:
        await forget_tasks(pool, documents, tasks)
        async with transaction(pool) as connection:
            await connection.execute(_SQL["forgotten"], tasks)
    return len(tasks)
