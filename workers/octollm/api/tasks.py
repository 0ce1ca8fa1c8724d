"""What is stored about tasks: lists, one task's status, its runs, steps, attempts and events."""

from datetime import datetime
from typing import Any

import asyncpg

from octollm.api.cursor import read_cursor
from octollm.api.pages import cut
from octollm.api.parameters import EventFilter, Paged, RunFilter, TaskFilter
from octollm.api.store import Store
from octollm.contracts.answers import AttemptItem, AttemptPage, RunItem, RunPage, StepItem, StepPage, TaskItem, TaskPage
from octollm.contracts.ids import as_text
from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.errors import AbsentError

_SQL = queries("octollm.api", "tasks")


async def list_tasks(store: Store, tenant: str, asked: TaskFilter) -> TaskPage:
    """Newest first."""
    place = read_cursor(asked.cursor, datetime, str)
    filters = (asked.state, asked.kind, asked.source, asked.priority, asked.since, asked.until, asked.text)
    async with store.reading() as connection:
        rows = await connection.fetch(_SQL["list"], tenant, *filters, *place, asked.limit + 1)
    items, after = cut(rows, asked.limit, _task_item, lambda row: (row["received_at"], row["id"]))
    return TaskPage(items=items, next=after)


async def status(store: Store, tenant: str, task: str) -> dict[str, Any]:
    """The fields of `task.status.v1`. The result goes out as it was stored, which was by its schema."""
    async with store.reading() as connection:
        row = await connection.fetchrow(_SQL["status"], tenant, task)
    if row is None:
        raise AbsentError
    found = {
        "task": row["id"],
        "tenant": row["tenant"],
        "kind": row["kind"],
        "state": row["state"],
        "run": row["run"],
        "version": row["version"],
        "stored": True,
        "reason": row["reason"],
        "detail": row["detail"],
        "created_at": as_text(row["received_at"]),
        "updated_at": as_text(row["updated_at"]),
        "open": [{**step, "sent_at": as_text(datetime.fromisoformat(step["sent_at"]))} for step in row["open"] or ()],
        "result": row["result"],
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


async def list_runs(store: Store, tenant: str, task: str, asked: Paged) -> RunPage:
    """Oldest first, each with its plan."""
    (after,) = read_cursor(asked.cursor, int)
    async with store.reading() as connection:
        await require(connection, tenant, task)
        rows = await connection.fetch(_SQL["runs"], tenant, task, _number(after), asked.limit + 1)
    items, following = cut(rows, asked.limit, _run_item, lambda row: (row["run"],))
    return RunPage(items=items, next=following)


async def list_steps(store: Store, tenant: str, task: str, asked: RunFilter) -> StepPage:
    """By run, round and name."""
    run, round_, step = read_cursor(asked.cursor, int, int, str)
    place = (_number(run) if asked.cursor else None, _number(round_), step)
    async with store.reading() as connection:
        await require(connection, tenant, task)
        rows = await connection.fetch(_SQL["steps"], tenant, task, asked.run, *place, asked.limit + 1)
    items, following = cut(rows, asked.limit, _step_item, lambda row: (row["run"], row["round"], row["step"]))
    return StepPage(items=items, next=following)


async def list_attempts(store: Store, tenant: str, task: str, asked: RunFilter) -> AttemptPage:
    """Oldest first."""
    kinds = (int, datetime, str, int, int, int, str)
    place = [
        _number(value) if kind is int and asked.cursor else value
        for kind, value in zip(kinds, read_cursor(asked.cursor, *kinds), strict=True)
    ]
    async with store.reading() as connection:
        await require(connection, tenant, task)
        rows = await connection.fetch(_SQL["attempts"], tenant, task, asked.run, *place, asked.limit + 1)
    names = ("run", "finished_at", "step", "round", "attempt", "delivery", "outcome")
    items, following = cut(rows, asked.limit, attempt_item, lambda row: [row[name] for name in names])
    return AttemptPage(items=items, next=following)


async def list_events(store: Store, tenant: str, task: str, asked: EventFilter) -> dict[str, Any]:
    """Bodies of `task.event.v1` as they were stored, oldest first; `next` is the last one's id while there are more."""
    place = asked.place()
    async with store.reading() as connection:
        await require(connection, tenant, task)
        rows = await connection.fetch(_SQL["events"], tenant, task, *place, asked.limit + 1)
    page = rows[: asked.limit]
    following = f"{page[-1]['run']}-{page[-1]['seq']}" if len(rows) > asked.limit else None
    return {"items": [row["body"] for row in page], "next": following}


async def require(connection: Connection, tenant: str, task: str) -> None:
    """Raises AbsentError where the tenant has no such task: an empty list would say that it has."""
    if await connection.fetchval(_SQL["exists"], tenant, task) is None:
        raise AbsentError


def attempt_item(row: asyncpg.Record) -> AttemptItem:
    """From a row of `attempts`."""
    values = {name: row[name] for name in AttemptItem.model_fields if name != "finished_at"}
    return AttemptItem(**values, finished_at=as_text(row["finished_at"]))


def _number(value: int | None) -> int:
    """Within Postgres's integer; where there is no cursor, before the first."""
    return min(value or 0, 2**31 - 1)


def _task_item(row: asyncpg.Record) -> TaskItem:
    same = ("tenant", "kind", "state", "reason", "detail", "source", "priority", "goal", "run")
    return TaskItem(
        task=row["id"],
        **{name: row[name] for name in same},
        created_at=as_text(row["received_at"]),
        updated_at=as_text(row["updated_at"]),
        deadline_at=_time(row, "deadline_at"),
    )


def _run_item(row: asyncpg.Record) -> RunItem:
    same = ("run", "state", "reason", "detail", "plan")
    return RunItem(
        **{name: row[name] for name in same},
        started_at=_time(row, "started_at"),
        finished_at=_time(row, "finished_at"),
    )


def _step_item(row: asyncpg.Record) -> StepItem:
    values = {name: row[name] for name in StepItem.model_fields if name != "sent_at"}
    return StepItem(**values, sent_at=as_text(row["sent_at"]))


def _time(row: asyncpg.Record, name: str) -> str | None:
    return None if row[name] is None else as_text(row[name])
