"""`octollm cost`: the cost of model calls."""

from typing import Annotated, cast, get_args

import typer
from rich.text import Text

from octollm.cli.client import connect
from octollm.cli.lists import Cursor, Limit, Since, Until, collect_pages, parse_past_time, present, table
from octollm.cli.output import JsonOption, emit_json, note, out
from octollm.client import CostFilter, CostPage
from octollm.contracts import plain
from octollm.contracts.answers import Cost, CostGroup

_GROUPS = get_args(CostGroup)
_COLUMNS = ("calls", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd")


def cost(
    *,
    by: Annotated[str, typer.Option(metavar="|".join(_GROUPS), help="What to group the calls by.")] = "day",
    task: Annotated[str | None, typer.Option(help="Only the calls of this task.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """Show model calls with their tokens and cost.

    Groups are sorted in descending order: the newest day comes first.
    """
    if by not in _GROUPS:
        raise typer.BadParameter(f"must be one of {', '.join(_GROUPS)}", param_hint="--by")
    times = {"since": parse_past_time(since, "--since"), "until": parse_past_time(until, "--until")}
    filters = cast("CostFilter", present(task=task, **times))
    totals: list[Cost] = []

    def fetch(size: int, at: str | None) -> CostPage:
        page = client.costs(cast("CostGroup", by), limit=size, cursor=at, **filters)
        totals.append(page.total)
        return page

    with connect() as client:
        items, next_cursor = collect_pages(fetch, limit, cursor)
    total = totals[-1]
    if as_json:
        emit_json({"group": by, "total": plain(total), "items": plain(items), "next": next_cursor})
        return
    if not items:
        note("no calls to models")
        return
    rows = [*plain(items), {"key": "total", **plain(total)}]
    out().print(table([{by: row["key"], **row} for row in rows], (by, *_COLUMNS)))
    if total.unpriced_calls:
        out().print(Text(f"{total.unpriced_calls} calls have no known price and are not included in cost_usd"))
    if next_cursor is not None:
        note(f"there are more: --cursor {next_cursor}")
