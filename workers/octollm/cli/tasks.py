"""`octollm tasks`: which tasks there are."""

from typing import Annotated, cast, get_args

import typer

from octollm.cli.connect import connect
from octollm.cli.lists import Cursor, Limit, Since, Until, gather, given, moment, print_list
from octollm.cli.output import JsonOption
from octollm.client import TaskFilter
from octollm.contracts.answers import TaskStateName

_COLUMNS = ("task", "state", "reason", "kind", "source", "priority", "run", "created_at", "goal")
_STATES = get_args(TaskStateName)
_PRIORITIES = ("high", "normal", "low")

State = Annotated[str | None, typer.Option(metavar="|".join(_STATES), help="In this state.")]
Kind = Annotated[str | None, typer.Option(help="Of this kind.")]
Source = Annotated[str | None, typer.Option(help="That came through this door, like http.")]
Priority = Annotated[str | None, typer.Option(metavar="high|normal|low", help="Of this priority.")]
Words = Annotated[str | None, typer.Option(metavar="WORDS", help="Whose goal contains this, in any case.")]


def tasks(
    *,
    state: State = None,
    kind: Kind = None,
    source: Source = None,
    priority: Priority = None,
    since: Since = None,
    until: Until = None,
    text: Words = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """List tasks, newest first."""
    _one_of("--state", state, _STATES)
    _one_of("--priority", priority, _PRIORITIES)
    # The two words were checked, which no type checker sees.
    which = cast(
        "TaskFilter",
        given(
            state=state, kind=kind, source=source, priority=priority,
            since=moment(since, "--since"), until=moment(until, "--until"), text=text,
        ),
    )  # fmt: skip
    with connect() as client:
        items, following = gather(lambda size, at: client.task_page(limit=size, cursor=at, **which), limit, cursor)
    print_list(items, following, _COLUMNS, as_json=as_json, none="there are no such tasks")


def _one_of(option: str, value: str | None, words: tuple[str, ...]) -> None:
    if value is not None and value not in words:
        raise typer.BadParameter(f"must be one of {', '.join(words)}", param_hint=option)
