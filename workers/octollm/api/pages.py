"""Pages of a list.

Queries fetch one row more than the page holds, to know whether there is a next page.
"""

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
    sort_values: Callable[[asyncpg.Record], Sequence[str | int | datetime]],
) -> tuple[list[Item], str | None]:
    """Return the items of a page, and the cursor of the next page (None: this is the last).

    `rows`: up to `limit` + 1 of them; `item`: converts a row; `sort_values`: a row's values in the order of ORDER BY.
    """
    page = rows[:limit]
    more = len(rows) > limit
    return [item(row) for row in page], write_cursor(sort_values(page[-1])) if more else None
