"""`octollm dead`: inspect dead letters. `dead_bulk` redrives and drops them."""

from typing import Annotated, cast

import typer
from rich.text import Text

from octollm.cli.client import connect
from octollm.cli.dead_bulk import drop, redrive
from octollm.cli.lists import Cursor, Limit, Since, Until, collect_pages, parse_past_time, present, print_list
from octollm.cli.output import JsonOption, clean, emit_json, out, pairs
from octollm.client import DeadLetterFilter
from octollm.contracts import plain

_COLUMNS = (
    "id",
    "received_at",
    "redriven_at",
    "dropped_at",
    "reason",
    "stage",
    "stream",
    "type",
    "task",
    "bytes",
    "message",
)
_FACTS = (*_COLUMNS, "run", "stored_bytes")

dead = typer.Typer(no_args_is_help=True, help="Inspect dead letters, run their tasks again, or drop them.")
dead.command()(redrive)
dead.command()(drop)
Reason = Annotated[str | None, typer.Option(help="Only dead letters with this reason, for example malformed.")]
AsJson = Annotated[bool, typer.Option("--json", help=JsonOption)]


@dead.command()
def ls(
    *,
    reason: Reason = None,
    task: Annotated[str | None, typer.Option(help="Only dead letters of this task.")] = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="Include those that were redriven or dropped.")] = False,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    times = {"since": parse_past_time(since, "--since"), "until": parse_past_time(until, "--until")}
    filters = cast("DeadLetterFilter", present(reason=reason, task=task, all=everything or None, **times))
    with connect() as client:
        items, next_cursor = collect_pages(
            lambda size, at: client.dead_letter_page(limit=size, cursor=at, **filters), limit, cursor
        )
    print_list(items, next_cursor, _COLUMNS, as_json=as_json, empty="no dead letters match")


@dead.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ID", min=1, help="The id that `ls` printed.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter and the stored part of its message."""
    with connect() as client:
        dead_letter = plain(client.dead_letter(number))
    if as_json:
        emit_json(dead_letter)
        return
    console = out()
    console.print(pairs([(name, dead_letter[name]) for name in _FACTS if name in dead_letter]))
    console.print()
    if "text" in dead_letter:
        console.print(Text("stored message", style="bold"))
        console.print(Text(clean(dead_letter["text"])))
    else:
        console.print("the stored message is not UTF-8 text")
