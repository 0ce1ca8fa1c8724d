"""`octollm watch`: what happens to a task, as it happens."""

import sys
from typing import Annotated

import orjson
import typer
from rich.text import Text

from octollm.cli.connect import connect
from octollm.cli.output import clean, out
from octollm.cli.show import waiting_line
from octollm.contracts import TaskEvent, WaitingStep, plain

_PATIENCE_S = 60


def watch(
    task: Annotated[str, typer.Argument(help="The id that `submit` printed.")],
    *,
    after: Annotated[
        str | None, typer.Option(metavar="RUN-SEQ", help="Leave out what came up to this event, like 1-4.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as one line of JSON.")] = False,
) -> None:
    """Follow a task to its end; exit code 1 unless it succeeded."""
    with connect() as client:
        client.status(task)  # a wrong id or address is said at once
    state: str | None = None
    told: dict[tuple[str, str], int] = {}
    with connect(_PATIENCE_S) as client:
        for event in client.watch(task, after):
            if isinstance(event, TaskEvent):
                state = event.state if event.event == "finished" else None
                told.clear()
            elif not _is_news(event, told):
                continue
            _print(event, as_json=as_json)
        if state is None:  # it had ended before `after`
            state = client.status(task).state
    if state != "succeeded":
        raise typer.Exit(1)


def _is_news(waiting: WaitingStep, told: dict[tuple[str, str], int]) -> bool:
    """Said at first, and again when it has become twice as long."""
    step = waiting.step, waiting.arm
    if step in told and waiting.for_s < 2 * max(told[step], 1):
        return False
    told[step] = waiting.for_s
    return True


def _print(event: TaskEvent | WaitingStep, *, as_json: bool) -> None:
    if as_json:
        named = {"event": "waiting"} if isinstance(event, WaitingStep) else {}
        sys.stdout.buffer.write(orjson.dumps({**named, **plain(event)}) + b"\n")
        sys.stdout.flush()
    elif isinstance(event, WaitingStep):
        out().print(Text(clean(waiting_line(event)), style="yellow"))
    else:
        out().print(Text(clean(_line(event))))


def _line(event: TaskEvent) -> str:
    """Time, what, of which step, and why."""
    step = event.step or ""
    if event.round:
        step += f" (round {event.round})"
    if event.attempt is not None and event.attempt > 1:
        step += f" (attempt {event.attempt})"
    why = ": ".join(part for part in (event.state, event.reason) if part)
    facts = (event.at, f"{event.event:<14}", step, event.arm and f"[{event.arm}]", why, event.detail)
    return "  ".join(fact for fact in facts if fact).replace("\n", " ")
