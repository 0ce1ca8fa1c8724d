"""Memory's part in a task's life, as the rows of `tasks` have it: what it still has to take in, and what to forget.

Call each pair in one transaction, with memory's own work between the two:
`finished`, then `remembered`; `to_forget`, then `forgotten`. Both may be repeated after a crash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from octollm.database.pool import Connection
from octollm.database.queries import queries

_SQL = queries("octollm.database", "remembering")


@dataclass(frozen=True, slots=True)
class Finished:
    """A task that has ended and that memory has not taken in."""

    task: str
    tenant: str
    run: int
    kind: str | None
    submission: Mapping[str, Any]
    """`task.submission.v1` as admission let it through."""
    result: Mapping[str, Any]
    """`task.result.v1`."""
    remember: Mapping[str, Any] | None
    """What the recipe wants kept (`octollm.plans.remember.check`); None: nothing."""
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Marked:
    """A task that is to be deleted once memory has forgotten it."""

    task: str
    tenant: str


async def finished(connection: Connection, task: str, run: int) -> Finished | None:
    """The task, held until the transaction ends. None: there is nothing to do any more (taken in, gone, or to be
    forgotten).
    """
    await connection.execute(_SQL["hold"], task)
    row = await connection.fetchrow(_SQL["finished"], task, run)
    if row is None:
        return None
    return Finished(
        task=row["id"],
        tenant=row["tenant"],
        run=row["run"],
        kind=row["kind"],
        submission=row["submission"],
        result=row["result"],
        remember=row["remember"],
        finished_at=row["finished_at"],
    )


async def remembered(connection: Connection, task: str, run: int) -> None:
    """Everything of this run is in memory; nobody sends its result again."""
    await connection.execute(_SQL["remembered"], task, run)


async def to_forget(connection: Connection, most: int) -> Sequence[Marked]:
    """Up to `most` tasks, held until the transaction ends; those that somebody else holds are left out."""
    return [Marked(row["id"], row["tenant"]) for row in await connection.fetch(_SQL["to_forget"], most)]


async def forgotten(connection: Connection, tasks: Sequence[str]) -> None:
    """Nothing of these tasks is in memory; their rows may go."""
    await connection.execute(_SQL["forgotten"], list(tasks))
