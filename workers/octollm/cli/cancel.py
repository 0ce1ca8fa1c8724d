"""`octollm cancel`: asks for a task's end."""

from typing import Annotated

import typer

from octollm.cli.connect import connect
from octollm.cli.output import JsonOption, emit_json, out, pairs
from octollm.contracts import plain


def cancel(
    task: Annotated[str, typer.Argument(help="The id that `submit` printed.")],
    *,
    detail: Annotated[str | None, typer.Option(metavar="WORDS", help="Why; kept with the task.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """Cancel a task. One that has ended stays as it is."""
    with connect() as client:
        answer = plain(client.cancel(task, detail))
    if as_json:
        emit_json(answer)
    else:
        out().print(pairs(list(answer.items())))
