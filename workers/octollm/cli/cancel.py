"""`octollm cancel`: requests the cancellation of a task."""

from typing import Annotated

import typer

from octollm.cli.client import connect
from octollm.cli.output import JsonOption, emit_json, out, pairs
from octollm.contracts import plain


def cancel(
    task: Annotated[str, typer.Argument(help="The id that `submit` printed.")],
    *,
    detail: Annotated[str | None, typer.Option(metavar="WORDS", help="The reason; stored with the task.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """Cancel a task.

    A task that has ended is not changed.
    """
    with connect() as client:
        answer = plain(client.cancel(task, detail))
    if as_json:
        emit_json(answer)
    else:
        out().print(pairs(list(answer.items())))
