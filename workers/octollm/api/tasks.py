"""Tasks: the list, the status of one, and its runs, steps, attempts and events."""

from datetime import datetime
from typing import Any

import asyncpg

from octollm.api.cursor import read_cursor
from octollm.api.pages import cut
from octollm.api.parameters import EventFilter, PageParameters, RunFilter, StatusFilter, TaskFilter
from octollm.api.store import Store
from octollm.contracts.answers import AttemptItem, AttemptPage, RunItem, RunPage, StepItem, StepPage, TaskItem, TaskPage
from octollm.contracts.ids import as_text
from octollm.contracts.task_status import task_status
from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.errors import AbsentError

_SQL = queries("octollm.api", "tasks")


async def list_tasks(store: Store, tenant: str, filters: TaskFilter) -> TaskPage:
    """Return one page of tasks, newest first."""
    before = read_cursor(filters.cursor, datetime, str)
    names = ("state", "kind", "source", "priority", "since", "until", "text")
    where = [getattr(filters, name) for name in names]
    async with store.reading() as connection:
        rows = await connection.fetch(_SQL["list"], tenant, *where, *before, filters.limit + 1)
    items, cursor = cut(rows, filters.limit, _task_item, lambda row: (row["received_at"], row["id"]))
    return TaskPage(items=items, next=cursor)


async def status(store: Store, tenant: str, task: str, filters: StatusFilter) -> dict[str, Any]:
    """Return the fields of `task.status.v1`. Raises AbsentError.

    The result is not validated again: it was stored by its schema.
    """
    async with store.reading() as connection:
        row = await connection.fetchrow(_SQL["status"], tenant, task, filters.include == "submission")
    if row is None:
        raise AbsentError
    return task_status(
        task=row["id"],
        tenant=row["tenant"],
        kind=row["kind"],
        state=row["state"],
        run=row["run"],
        version=row["version"],
        reason=row["reason"],
        detail=row["detail"],
        created_at=as_text(row["received_at"]),
        updated_at=as_text(row["updated_at"]),
        metadata=row["metadata"],
        submission=row["submission"],
        open_steps=[
            {**step, "sent_at": as_text(datetime.fromisoformat(step["sent_at"]))} for step in row["open"] or ()
        ],
        result=row["result"],
    )


async def list_runs(store: Store, tenant: str, task: str, page: PageParameters) -> RunPage:
    """Return one page of a task's runs with their plans, oldest first. Raises AbsentError."""
    (after,) = read_cursor(page.cursor, int)
    async with store.reading() as connection:
        await require(connection, tenant, task)
        rows = await connection.fetch(_SQL["runs"], tenant, task, _integer(after), page.limit + 1)
    items, cursor = cut(rows, page.limit, _run_item, lambda row: (row["run"],))
    return RunPage(items=items, next=cursor)


async def list_steps(store: Store, tenant: str, task: str, filters: RunFilter) -> StepPage:
    """Return one page of a task's steps by run, round and name. Raises AbsentError."""
    run, round_, step = read_cursor(filters.cursor, int, int, str)
    after = (_integer(run) if filters.cursor else None, _integer(round_), step)
    async with store.reading() as connection:
        await require(connection, tenant, task)
        rows = await connection.fetch(_SQL["steps"], tenant, task, filters.run, *after, filters.limit + 1)
    items, cursor = cut(rows, filters.limit, _step_item, lambda row: (row["run"], row["round"], row["step"]))
    return StepPage(items=items, next=cursor)


async def list_attempts(store: Store, tenant: str, task: str, filters: RunFilter) -> AttemptPage:
    """Return one page of the attempts at a task's steps, oldest first. Raises AbsentError."""
    kinds = (int, datetime, str, int, int, int, str)
    after = [
        _integer(value) if kind is int and filters.cursor else value
        for kind, value in zip(kinds, read_cursor(filters.cursor, *kinds), strict=True)
    ]
    async with store.reading() as connection:
        await require(connection, tenant, task)
        rows = await connection.fetch(_SQL["attempts"], tenant, task, filters.run, *after, filters.limit + 1)
    names = ("run", "finished_at", "step", "round", "attempt", "delivery", "outcome")
    items, cursor = cut(rows, filters.limit, attempt_item, lambda row: [row[name] for name in names])
    return AttemptPage(items=items, next=cursor)


async def list_events(store: Store, tenant: str, task: str, filters: EventFilter) -> dict[str, Any]:
    """Return one page of a task's events as they were stored, oldest first. Raises AbsentError.

    `next` is the id of the last event on the page if there are more, else None.
    """
    after = filters.position()
    async with store.reading() as connection:
        await require(connection, tenant, task)
        rows = await connection.fetch(_SQL["events"], tenant, task, *after, filters.limit + 1)
    page = rows[: filters.limit]
    cursor = f"{page[-1]['run']}-{page[-1]['seq']}" if len(rows) > filters.limit else None
    return {"items": [row["body"] for row in page], "next": cursor}


async def require(connection: Connection, tenant: str, task: str) -> None:
    """Raise AbsentError unless the tenant has the task: an empty list would suggest that it has."""
    if await connection.fetchval(_SQL["exists"], tenant, task) is None:
        raise AbsentError


def attempt_item(row: asyncpg.Record) -> AttemptItem:
    """Return the item for a row of the table `attempts`."""
    values = {name: row[name] for name in AttemptItem.model_fields if name != "finished_at"}
    return AttemptItem(**values, finished_at=as_text(row["finished_at"]))


def _integer(value: int | None) -> int:
    """Return a value that fits Postgres's integer; 0, which is before the first row, for None."""
    return min(value or 0, 2**31 - 1)


def _task_item(row: asyncpg.Record) -> TaskItem:
    columns = ("tenant", "kind", "state", "reason", "detail", "source", "priority", "goal", "run")
    return TaskItem(
        task=row["id"],
        **{name: row[name] for name in columns},
        created_at=as_text(row["received_at"]),
        updated_at=as_text(row["updated_at"]),
        deadline_at=_time(row, "deadline_at"),
    )


def _run_item(row: asyncpg.Record) -> RunItem:
    columns = ("run", "state", "reason", "detail", "plan")
    return RunItem(
        **{name: row[name] for name in columns},
        started_at=_time(row, "started_at"),
        finished_at=_time(row, "finished_at"),
    )


def _step_item(row: asyncpg.Record) -> StepItem:
    values = {name: row[name] for name in StepItem.model_fields if name != "sent_at"}
    return StepItem(**values, sent_at=as_text(row["sent_at"]))


def _time(row: asyncpg.Record, name: str) -> str | None:
    return None if row[name] is None else as_text(row[name])
