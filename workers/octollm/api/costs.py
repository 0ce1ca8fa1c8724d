"""What calls to models took, added up by task, arm, model or day."""

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


async def list_costs(store: Store, tenant: str, asked: CostFilter) -> CostPage:
    """Greatest key first."""
    (before,) = read_cursor(asked.cursor, str)
    which = (asked.task, asked.since, asked.until)
    async with store.reading() as connection:
        rows = await connection.fetch(_SQL["grouped"], tenant, asked.group, *which, before, asked.limit + 1)
        total = cost_of(await connection.fetchrow(_SQL["total"], tenant, *which, None))
    items, following = cut(rows, asked.limit, _item, lambda row: (row["key"],))
    return CostPage(group=asked.group, total=total, items=items, next=following)


async def cost_of_run(connection: Connection, tenant: str, task: str, run: int) -> Cost:
    """Of one run of a task."""
    return cost_of(await connection.fetchrow(_SQL["total"], tenant, task, None, None, run))


def cost_of(row: asyncpg.Record | None) -> Cost:
    """From a row of sums; an aggregate without groups always has one."""
    assert row is not None  # noqa: S101
    return Cost(**_sums(row))


def money(row: asyncpg.Record) -> str | None:
    """Dollars without rounding and without an exponent."""
    return None if row["cost_usd"] is None else f"{row['cost_usd']:f}"


def _item(row: asyncpg.Record) -> CostItem:
    return CostItem(key=row["key"], **_sums(row))


def _sums(row: asyncpg.Record) -> dict[str, Any]:
    sums = {name: row[name] for name in Cost.model_fields if name != "cost_usd"}
    return {**sums, "cost_usd": money(row)}
