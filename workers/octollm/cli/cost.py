"""`octollm cost`: what calls to models took."""

from typing import Annotated, cast, get_args

import typer
from rich.text import Text

from octollm.cli.connect import connect
from octollm.cli.lists import Cursor, Limit, Since, Until, gather, given, moment, table
from octollm.cli.output import JsonOption, emit_json, note, out
from octollm.client import CostFilter, CostPage
from octollm.contracts import plain
from octollm.contracts.answers import Cost, CostGroup

_GROUPS = get_args(CostGroup)


def cost(
    *,
    by: Annotated[str, typer.Option(metavar="|".join(_GROUPS), help="What is added up.")] = "day",
    task: Annotated[str | None, typer.Option(help="Of this task.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """Show what calls to models took, added up; newest or greatest name first."""
    if by not in _GROUPS:
        raise typer.BadParameter(f"must be one of {', '.join(_GROUPS)}", param_hint="--by")
    times = {"since": moment(since, "--since"), "until": moment(until, "--until")}
    which = cast("CostFilter", given(task=task, **times))
    total: list[Cost] = []

    def page(size: int, at: str | None) -> CostPage:
        found = client.costs(cast("CostGroup", by), limit=size, cursor=at, **which)
        total.append(found.total)
        return found

    with connect() as client:
        items, following = gather(page, limit, cursor)
    if as_json:
        emit_json({"group": by, "total": plain(total[-1]), "items": plain(items), "next": following})
        return
    rows = [*plain(items), {"key": "total", **plain(total[-1])}]
    if len(rows) == 1:
        note("no calls to models")
        return
    columns = ("calls", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd")
    out().print(table([{by: row["key"], **row} for row in rows], (by, *columns)))
    unpriced = total[-1].unpriced_calls
    if unpriced:
        out().print(Text(f"{unpriced} calls have no known price and are not in cost_usd"))
    if following is not None:
        note(f"there are more: --cursor {following}")
