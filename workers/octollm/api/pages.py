"""From rows to a page: one row more than asked for tells whether there is a next page."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import asyncpg

from octollm.api.cursor import write_cursor

Item = TypeVar("Item")


def cut(
    rows: Sequence[asyncpg.Record],
    limit: int,
    item: Callable[[asyncpg.Record], Item],
    place: Callable[[asyncpg.Record], Sequence[str | int | datetime]],
) -> tuple[list[Item], str | None]:
    """Items and cursor. `rows`: up to `limit` + 1 of them; `place`: a row's values in the list's order."""
    page = rows[:limit]
    more = len(rows) > limit
    return [item(row) for row in page], write_cursor(place(page[-1])) if more else None
