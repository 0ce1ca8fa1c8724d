"""Callbacks of ended tasks, and the endpoints that fail.

Lists, one callback, and what an operator may do with them.
"""

from typing import Any

import asyncpg
import orjson

from octollm.api.cursor import read_cursor
from octollm.api.pages import cut
from octollm.api.parameters import CallbackFilter, PageParameters
from octollm.api.store import Store
from octollm.contracts.answers import (
    Callback,
    CallbackEndpointItem,
    CallbackEndpointPage,
    CallbackItem,
    CallbackPage,
    Enabling,
    Redelivery,
)
from octollm.contracts.ids import as_text
from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.errors import AbsentError

_SQL = queries("octollm.api", "callbacks")


async def list_callbacks(store: Store, tenant: str, filters: CallbackFilter) -> CallbackPage:
    """Return one page of callbacks, newest first, without what was sent."""
    (before,) = read_cursor(filters.cursor, int)
    where = (filters.task, filters.state, filters.endpoint)
    async with store.reading() as connection:
        rows = await connection.fetch(_SQL["list"], tenant, *where, before, filters.limit + 1)
    items, cursor = cut(rows, filters.limit, lambda row: CallbackItem(**_facts(row)), lambda row: (row["id"],))
    return CallbackPage(items=items, next=cursor)


async def callback(store: Store, tenant: str, number: int) -> Callback:
    """Return the callback with the id `number`, and what is sent. Raises AbsentError."""
    async with store.reading() as connection:
        row = await connection.fetchrow(_SQL["one"], tenant, number)
    if row is None:
        raise AbsentError
    return Callback(**_facts(row), url=row["url"], body=orjson.loads(row["body"]), response=row["response"])


async def callbacks_of_run(connection: Connection, tenant: str, task: str, run: int) -> list[CallbackItem]:
    """Return the callbacks of one run of a task, oldest first."""
    rows = await connection.fetch(_SQL["of_run"], tenant, task, run)
    return [CallbackItem(**_facts(row)) for row in rows]


async def redeliver(store: Store, tenant: str, number: int) -> Redelivery:
    """Send a callback again, however it ended. Raises AbsentError."""
    async with store.writing() as connection:
        task = await connection.fetchval(_SQL["redeliver"], tenant, number)
    if task is None:
        raise AbsentError
    return Redelivery(id=number, task=task, accepted=True)


async def list_endpoints(store: Store, tenant: str, page: PageParameters) -> CallbackEndpointPage:
    """Return one page of the endpoints that fail or are disabled, newest first."""
    (before,) = read_cursor(page.cursor, int)
    async with store.reading() as connection:
        rows = await connection.fetch(_SQL["endpoints"], tenant, before, page.limit + 1)
    items, cursor = cut(rows, page.limit, _endpoint, lambda row: (row["id"],))
    return CallbackEndpointPage(items=items, next=cursor)


async def enable(store: Store, tenant: str, number: int) -> Enabling:
    """Send to an endpoint again, and count its failures from now on. Raises AbsentError."""
    async with store.writing() as connection:
        name = await connection.fetchval(_SQL["enable"], tenant, number)
    if name is None:
        raise AbsentError
    return Enabling(id=number, endpoint=name, accepted=True)


def _facts(row: asyncpg.Record) -> dict[str, Any]:
    names = ("id", "tenant", "task", "run", "endpoint", "state", "attempts", "outcome", "status", "detail")
    times = {name: as_text(row[name]) for name in ("created_at", "attempted_at") if row[name] is not None}
    # A callback that has ended has no next attempt.
    next_attempt = {"next_attempt_at": as_text(row["next_attempt_at"])} if row["state"] == "pending" else {}
    return {**{name: row[name] for name in names}, **times, **next_attempt}


def _endpoint(row: asyncpg.Record) -> CallbackEndpointItem:
    return CallbackEndpointItem(
        **{name: row[name] for name in ("id", "tenant", "failures", "detail", "pending")},
        endpoint=row["name"],
        failing_since=as_text(row["failing_since"]),
        disabled_at=None if row["disabled_at"] is None else as_text(row["disabled_at"]),
    )
