"""What the listing commands share: options, times, pages and tables."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from octollm.cli.output import clean, emit_json, note, out
from octollm.contracts import plain
from octollm.contracts.answers import Item, Page
from octollm.contracts.ids import as_text

Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="From this time on: 2h (2 hours ago), 7d, or a time like 2026-01-31T12:00:00Z."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before this time; same format as --since.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of items.")]
Cursor = Annotated[str | None, typer.Option(help="Continue where an earlier list ended.")]
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MAX_PAGE = 200  # the API's limit
_MAX_CELL = 80
Value = TypeVar("Value")


def parse_past_time(text: str | None, option: str) -> datetime | None:
    """Parse the value of `option`: a time, or a duration before now. Raises BadParameter.

    Times without a zone are in the local one; the result always has a zone.
    """
    if text is None:
        return None
    try:
        duration = _DURATION.fullmatch(text)
        if duration is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[duration[2]]: int(duration[1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            "must be like 30m, 2h, 7d, or a time like 2026-01-31T12:00:00Z", param_hint=option
        ) from error
    return found if found.tzinfo is not None else found.astimezone()


def parse_future_time(text: str | None, option: str) -> str | None:
    """Parse the value of `option`: a time, or `+` and a duration from now. Raises BadParameter.

    Returns the time as messages write it.
    """
    if text is None:
        return None
    try:
        duration = _DURATION.fullmatch(text.removeprefix("+")) if text.startswith("+") else None
        if duration is not None:
            return as_text(datetime.now(UTC) + timedelta(**{_UNITS[duration[2]]: int(duration[1])}))
        return as_text(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            "must be like +10m, +2h, +7d, or a time like 2026-01-31T12:00:00Z", param_hint=option
        ) from error


def present(**filters: Value | None) -> dict[str, Value]:
    """Return the filters that are not None."""
    return {name: value for name, value in filters.items() if value is not None}


def collect_pages(
    fetch: Callable[[int, str | None], Page[Item]], limit: int, cursor: str | None
) -> tuple[list[Item], str | None]:
    """Return up to `limit` items from as many pages as needed, and the cursor of the rest or None.

    `fetch`: takes a page size and a cursor.
    """
    items: list[Item] = []
    while True:
        page = fetch(min(_MAX_PAGE, limit - len(items)), cursor)
        items += page.items
        cursor = page.next
        if cursor is None or len(items) >= limit:
            return items, cursor


def print_list(
    items: Sequence[Item], next_cursor: str | None, columns: Sequence[str], *, as_json: bool, empty: str
) -> None:
    """Print items as JSON with the cursor, or as a table of `columns`.

    `empty` is printed when there are no items.
    """
    rows = plain(list(items))
    if as_json:
        emit_json({"items": rows, "next": next_cursor})
        return
    if not rows:
        note(empty)
        return
    out().print(table(rows, columns))
    if next_cursor is not None:
        note(f"there are more: --cursor {next_cursor}")


def table(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> Table:
    """Return a table of `rows`, without the columns that no row has a value for."""
    made = Table(box=None, pad_edge=False)
    shown = [name for name in columns if any(row.get(name) is not None for row in rows)]
    for name in shown:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*(Text(_cell(row.get(name))) for name in shown))
    return made


def _cell(value: object) -> str:
    text = "" if value is None else clean(value).replace("\n", " ")
    return text if len(text) <= _MAX_CELL else f"{text[: _MAX_CELL - 1]}\N{HORIZONTAL ELLIPSIS}"
