"""`octollm dead`: messages that were given up on, and what is to become of them."""

from typing import Annotated, cast

import typer
from rich.text import Text

from octollm.cli.connect import connect
from octollm.cli.dead_bulk import drop, redrive
from octollm.cli.lists import Cursor, Limit, Since, Until, gather, given, moment, print_list
from octollm.cli.output import JsonOption, clean, emit_json, out, pairs
from octollm.client import LetterFilter
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

dead = typer.Typer(
    no_args_is_help=True, help="Look at messages that were given up on, run their tasks again, or drop them."
)
dead.command()(redrive)
dead.command()(drop)
Reason = Annotated[str | None, typer.Option(help="Given up on for this reason, like unreadable.")]
AsJson = Annotated[bool, typer.Option("--json", help=JsonOption)]


@dead.command()
def ls(
    *,
    reason: Reason = None,
    task: Annotated[str | None, typer.Option(help="Of this task.")] = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were redriven or dropped.")] = False,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    times = {"since": moment(since, "--since"), "until": moment(until, "--until")}
    which = cast("LetterFilter", given(reason=reason, task=task, all=everything or None, **times))
    with connect() as client:
        items, following = gather(
            lambda size, at: client.dead_letter_page(limit=size, cursor=at, **which), limit, cursor
        )
    print_list(items, following, _COLUMNS, as_json=as_json, none="there are no such dead letters")


@dead.command()
def show(
    number: Annotated[int, typer.Argument(metavar="ID", min=1, help="The id that `ls` printed.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show one with what is kept of it."""
    with connect() as client:
        letter = plain(client.dead_letter(number))
    if as_json:
        emit_json(letter)
        return
    console = out()
    console.print(pairs([(name, letter[name]) for name in _FACTS if name in letter]))
    console.print()
    if "text" in letter:
        console.print(Text("kept", style="bold"))
        console.print(Text(clean(letter["text"])))
    else:
        console.print("what is kept is no UTF-8 text")
