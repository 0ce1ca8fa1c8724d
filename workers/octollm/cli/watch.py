"""`octollm watch`: prints the events of a task as they happen."""

import sys
from typing import Annotated

import orjson
import typer
from rich.text import Text

from octollm.cli.client import connect
from octollm.cli.output import clean, out
from octollm.cli.show import waiting_line
from octollm.contracts import TaskEvent, WaitingStep, plain

_RETRY_FOR_S = 60


def watch(
    task: Annotated[str, typer.Argument(help="The id that `submit` printed.")],
    *,
    after: Annotated[
        str | None, typer.Option(metavar="RUN-SEQ", help="Skip events up to and including this one, like 1-4.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as one line of JSON.")] = False,
) -> None:
    """Follow the events of a task until it ends.

    The exit code is 1 unless the task succeeded.
    """
    with connect() as client:
        client.status(task)  # fails at once for a wrong id or address
    state: str | None = None
    printed_s: dict[tuple[str, str], int] = {}
    with connect(_RETRY_FOR_S) as client:
        for event in client.watch(task, after):
            if isinstance(event, TaskEvent):
                state = event.state if event.event == "finished" else None
                printed_s.clear()
            elif not _is_news(event, printed_s):
                continue
            _print(event, as_json=as_json)
        if state is None:  # the task had ended before `after`
            state = client.status(task).state
    if state != "succeeded":
        raise typer.Exit(1)


def _is_news(waiting: WaitingStep, printed_s: dict[tuple[str, str], int]) -> bool:
    """Whether to print how long a step has waited: at first, and each time it has doubled."""
    step = waiting.step, waiting.arm
    if step in printed_s and waiting.for_s < 2 * max(printed_s[step], 1):
        return False
    printed_s[step] = waiting.for_s
    return True


def _print(event: TaskEvent | WaitingStep, *, as_json: bool) -> None:
    if as_json:
        event_type = {"event": "waiting"} if isinstance(event, WaitingStep) else {}
        sys.stdout.buffer.write(orjson.dumps({**event_type, **plain(event)}) + b"\n")
        sys.stdout.flush()
    elif isinstance(event, WaitingStep):
        out().print(Text(clean(waiting_line(event)), style="yellow"))
    else:
        out().print(Text(clean(_line(event))))


def _line(event: TaskEvent) -> str:
    """Format time, event, step, arm and reason in one line."""
    step = event.step or ""
    if event.round:
        step += f" (round {event.round})"
    if event.attempt is not None and event.attempt > 1:
        step += f" (attempt {event.attempt})"
    reason = ": ".join(part for part in (event.state, event.reason) if part)
    parts = (event.at, f"{event.event:<14}", step, event.arm and f"[{event.arm}]", reason, event.detail)
    return "  ".join(part for part in parts if part).replace("\n", " ")
