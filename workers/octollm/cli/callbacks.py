"""`octollm callbacks`: see what is sent when tasks end, send it again, and enable endpoints."""

from typing import Annotated, cast

import typer

from octollm.cli.client import connect
from octollm.cli.lists import Cursor, Limit, collect_pages, present, print_list
from octollm.cli.output import JsonOption, clean, emit_json, note, out, pairs, pretty_json
from octollm.client import CallbackFilter
from octollm.contracts import plain

_COLUMNS = ("id", "created_at", "task", "run", "endpoint", "state", "outcome", "status", "attempts", "next_attempt_at")
_FACTS = (*_COLUMNS, "attempted_at", "detail", "url", "response")
_ENDPOINT_COLUMNS = ("id", "endpoint", "failing_since", "failures", "disabled_at", "pending", "detail")

callbacks = typer.Typer(no_args_is_help=True, help="Inspect callbacks, send them again, and enable endpoints.")
AsJson = Annotated[bool, typer.Option("--json", help=JsonOption)]
Number = Annotated[int, typer.Argument(metavar="ID", min=1, help="The id that `ls` printed.")]


@callbacks.command()
def ls(
    *,
    task: Annotated[str | None, typer.Option(help="Only callbacks of this task.")] = None,
    state: Annotated[str | None, typer.Option(help="Only those in this state: pending, delivered or failed.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only those of this endpoint: a name, or a URL.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List callbacks, newest first."""
    filters = cast("CallbackFilter", present(task=task, state=state, endpoint=endpoint))
    with connect() as client:
        items, next_cursor = collect_pages(
            lambda size, at: client.callback_page(limit=size, cursor=at, **filters), limit, cursor
        )
    print_list(items, next_cursor, _COLUMNS, as_json=as_json, empty="no callbacks match")


@callbacks.command()
def show(number: Number, *, as_json: AsJson = False) -> None:
    """Show one callback, what is sent, and the beginning of the last answer."""
    with connect() as client:
        found = plain(client.callback(number))
    if as_json:
        emit_json(found)
        return
    console = out()
    console.print(pairs([(name, found[name]) for name in _FACTS if name in found]))
    console.print()
    console.print(clean(pretty_json(found["body"])))


@callbacks.command()
def redeliver(number: Number, *, as_json: AsJson = False) -> None:
    """Send a callback again, however it ended."""
    with connect() as client:
        answer = plain(client.redeliver(number))
    if as_json:
        emit_json(answer)
    else:
        note(f"callback {number} of task {answer['task']} is sent again; it waits while its endpoint is disabled")


@callbacks.command()
def endpoints(*, limit: Limit = 20, cursor: Cursor = None, as_json: AsJson = False) -> None:
    """List the endpoints that fail or are disabled."""
    with connect() as client:
        items, next_cursor = collect_pages(
            lambda size, at: client.callback_endpoint_page(limit=size, cursor=at), limit, cursor
        )
    print_list(items, next_cursor, _ENDPOINT_COLUMNS, as_json=as_json, empty="no endpoint fails")


@callbacks.command()
def enable(
    number: Annotated[int, typer.Argument(metavar="ID", min=1, help="The id that `endpoints` printed.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Send to a disabled endpoint again, and count its failures from now on."""
    with connect() as client:
        answer = plain(client.enable_callback_endpoint(number))
    if as_json:
        emit_json(answer)
    else:
        note(f"callbacks are sent to {answer['endpoint']} again")
