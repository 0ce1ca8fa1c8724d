"""What the commands that list have in common: their options, times in words, tables, and the way to the next page."""

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
    str | None, typer.Option(metavar="TIME", help="From then on: 2h, 7d, or a time like 2026-01-31T12:00:00Z.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before then; written the same way.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]
Cursor = Annotated[str | None, typer.Option(help="Go on where an earlier list ended.")]
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PAGE = 200  # the most that the API gives at once
Value = TypeVar("Value")


def moment(text: str | None, option: str) -> datetime | None:
    """A time as people write it. Raises BadParameter."""
    if text is None:
        return None
    try:
        ago = _AGO.fullmatch(text)
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            "must be like 30m, 2h, 7d, or a time like 2026-01-31T12:00:00Z", param_hint=option
        ) from error
    return found if found.tzinfo is not None else found.astimezone()


def ahead(text: str | None, option: str) -> str | None:
    """A time to come as messages carry it. Raises BadParameter."""
    if text is None:
        return None
    try:
        after = _AGO.fullmatch(text.removeprefix("+")) if text.startswith("+") else None
        if after is not None:
            return as_text(datetime.now(UTC) + timedelta(**{_UNITS[after[2]]: int(after[1])}))
        return as_text(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            "must be like +10m, +2h, +7d, or a time like 2026-01-31T12:00:00Z", param_hint=option
        ) from error


def given(**filters: Value | None) -> dict[str, Value]:
    """Those that are not None."""
    return {name: value for name, value in filters.items() if value is not None}


def gather(
    page: Callable[[int, str | None], Page[Item]], limit: int, cursor: str | None
) -> tuple[list[Item], str | None]:
    """Up to `limit` items over as many pages as it takes, and the cursor of what follows."""
    items: list[Item] = []
    while True:
        found = page(min(_PAGE, limit - len(items)), cursor)
        items += found.items
        cursor = found.next
        if cursor is None or len(items) >= limit:
            return items, cursor


def print_list(
    items: Sequence[Item], following: str | None, columns: Sequence[str], *, as_json: bool, none: str
) -> None:
    """As JSON with the cursor; or as a table of those columns that have something to show."""
    rows = plain(list(items))
    if as_json:
        emit_json({"items": rows, "next": following})
        return
    if not rows:
        note(none)
        return
    out().print(table(rows, columns))
    if following is not None:
        note(f"there are more: --cursor {following}")


def table(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> Table:
    """Rows below each other; a column that is empty everywhere is left out."""
    made = Table(box=None, pad_edge=False)
    shown = [name for name in columns if any(row.get(name) is not None for row in rows)]
    for name in shown:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*(Text(_cell(row.get(name))) for name in shown))
    return made


def _cell(value: object) -> str:
    text = "" if value is None else clean(value).replace("\n", " ")
    return text if len(text) <= 80 else f"{text[:79]}\N{HORIZONTAL ELLIPSIS}"
