"""`octollm tasks`: lists tasks."""

from typing import Annotated, cast, get_args

import typer

from octollm.cli.client import connect
from octollm.cli.lists import Cursor, Limit, Since, Until, collect_pages, parse_past_time, present, print_list
from octollm.cli.output import JsonOption
from octollm.client import TaskFilter
from octollm.contracts.answers import TaskStateName

_COLUMNS = ("task", "state", "reason", "kind", "source", "priority", "run", "created_at", "goal")
_STATES = get_args(TaskStateName)
_PRIORITIES = ("high", "normal", "low")

State = Annotated[str | None, typer.Option(metavar="|".join(_STATES), help="Only tasks in this state.")]
Kind = Annotated[str | None, typer.Option(help="Only tasks of this kind.")]
Source = Annotated[str | None, typer.Option(help="Only tasks submitted this way: http, webhook or stream.")]
Priority = Annotated[str | None, typer.Option(metavar="high|normal|low", help="Only tasks of this priority.")]
Text = Annotated[
    str | None, typer.Option(metavar="WORDS", help="Only tasks whose goal contains this text, in upper or lower case.")
]


def tasks(
    *,
    state: State = None,
    kind: Kind = None,
    source: Source = None,
    priority: Priority = None,
    since: Since = None,
    until: Until = None,
    text: Text = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """List tasks, newest first."""
    _require_one_of("--state", state, _STATES)
    _require_one_of("--priority", priority, _PRIORITIES)
    # The cast is safe: state and priority were checked just now.
    filters = cast(
        "TaskFilter",
        present(
            state=state, kind=kind, source=source, priority=priority, text=text,
            since=parse_past_time(since, "--since"), until=parse_past_time(until, "--until"),
        ),
    )  # fmt: skip
    with connect() as client:
        items, next_cursor = collect_pages(
            lambda size, at: client.task_page(limit=size, cursor=at, **filters), limit, cursor
        )
    print_list(items, next_cursor, _COLUMNS, as_json=as_json, empty="no tasks match")


def _require_one_of(option: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise typer.BadParameter(f"must be one of {', '.join(allowed)}", param_hint=option)
