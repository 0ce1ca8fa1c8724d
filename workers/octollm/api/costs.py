"""The cost of calls to models, grouped by task, arm, model or day."""

from typing import Any

import asyncpg

from octollm.api.cursor import read_cursor
from octollm.api.pages import cut
from octollm.api.parameters import CostFilter
from octollm.api.store import Store
from octollm.contracts.answers import Cost, CostItem, CostPage
from octollm.database.pool import Connection
from octollm.database.queries import queries

_SQL = queries("octollm.api", "costs")


async def list_costs(store: Store, tenant: str, filters: CostFilter) -> CostPage:
    """Return one page of groups, greatest key first, and the total of everything that matches."""
    (before,) = read_cursor(filters.cursor, str)
    where = (filters.task, filters.since, filters.until)
    async with store.reading() as connection:
        rows = await connection.fetch(_SQL["grouped"], tenant, filters.group, *where, before, filters.limit + 1)
        total = cost_of(await connection.fetchrow(_SQL["total"], tenant, *where, None))
    items, cursor = cut(rows, filters.limit, _item, lambda row: (row["key"],))
    return CostPage(group=filters.group, total=total, items=items, next=cursor)


async def cost_of_run(connection: Connection, tenant: str, task: str, run: int) -> Cost:
    """Return the cost of one run of a task."""
    return cost_of(await connection.fetchrow(_SQL["total"], tenant, task, None, None, run))


def cost_of(row: asyncpg.Record | None) -> Cost:
    """Return the cost from the row of the query `total`."""
    assert row is not None  # noqa: S101  an aggregate without GROUP BY always returns a row
    return Cost(**_sums(row))


def money(row: asyncpg.Record) -> str | None:
    """Return `cost_usd` as an exact decimal without an exponent, or None if no price is known."""
    return None if row["cost_usd"] is None else f"{row['cost_usd']:f}"


def _item(row: asyncpg.Record) -> CostItem:
    return CostItem(key=row["key"], **_sums(row))


def _sums(row: asyncpg.Record) -> dict[str, Any]:
    sums = {name: row[name] for name in Cost.model_fields if name != "cost_usd"}
    return {**sums, "cost_usd": money(row)}
