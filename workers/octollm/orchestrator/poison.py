"""Fails a task on which the orchestrator's own code failed.

Deliberately simple: fixed SQL and neither recipes nor `decide`, because that code may be what failed.
"""

import asyncpg

from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.orchestrator import rows
from octollm.orchestrator.state import Decision
from octollm.orchestrator.task_events import TaskEvent

_SQL = queries("octollm.orchestrator", "store")


async def fail_task(
    connection: Connection, task: str, run: int | None, detail: str, now: str
) -> tuple[asyncpg.Record | None, list[TaskEvent]]:
    """End a run as `failed: poison`.

    Return the task's row and the new events; no row if there is no such running run.

    `run`: None for the newest one. `now`: the database's time.
    """
    row = await connection.fetchrow(_SQL["poison_task"], task, detail, now, run)
    return row, [] if row is None else await record_end(connection, row, detail, now)


async def record_end(connection: Connection, row: asyncpg.Record, detail: str, now: str) -> list[TaskEvent]:
    """Store what belongs to the end of a run whose row says already that it has ended.

    Return the new events.
    """
    await connection.execute(_SQL["cancel_steps"], row["id"], row["run"])
    event = TaskEvent.build(
        row["id"], row["run"], row["seq"], row["tenant"], now, "finished", detail, state="failed", reason="poison"
    )  # fmt: skip
    await connection.execute(_SQL["insert_events"], [rows.event_row(event)])
    return [event]


def decision_of(row: asyncpg.Record, events: list[TaskEvent]) -> Decision:
    """Return the decision that leads to what has to be published about a task that was failed here."""
    return Decision(rows.state_of(row, {}), events=events, finished=True, steps_unknown=True)
