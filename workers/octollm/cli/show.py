"""`octollm show`: the status and result of one task."""

from typing import Annotated, Any

import typer
from rich.text import Text

from octollm.cli.client import connect
from octollm.cli.lists import table
from octollm.cli.output import JsonOption, clean, emit_json, out, pairs, pretty_json
from octollm.contracts import TaskStatus, WaitingStep, plain

_FACTS = ("task", "tenant", "kind", "state", "reason", "detail", "run", "created_at", "updated_at")
_STEP_COLUMNS = ("step", "arm", "round", "attempt", "state", "duration_ms")


def show(
    task: Annotated[str, typer.Argument(help="The id that `submit` printed.")],
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the task has ended; exit code 1 unless it succeeded.")
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Maximum time for --wait.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """Show the status and result of a task."""
    with connect() as client:
        status = client.wait(task, timeout) if wait else client.status(task)
    print_status(status, as_json=as_json)
    if wait and status.state != "succeeded":
        raise typer.Exit(1)


def print_status(status: TaskStatus, *, as_json: bool) -> None:
    """Print a status as JSON, or its facts, steps and answer for people."""
    fields: dict[str, Any] = plain(status)
    if as_json:
        emit_json(fields)
        return
    console = out()
    facts: list[tuple[str, object]] = [(name, fields[name]) for name in _FACTS if name in fields]
    console.print(pairs([*facts, *(("waiting", waiting_line(step)) for step in status.waiting or ())]))
    result = fields.get("result")
    if result is None:
        if status.result_at is not None:
            console.print(Text(clean(f"{status.result_at.api_path}: {status.result_at.detail}")))
        return
    if result["steps"]:
        console.print()
        console.print(table(result["steps"], _STEP_COLUMNS))
    console.print()
    console.print(Text("answer", style="bold"))
    console.print(Text(clean(pretty_json(result["answer"]))))


def waiting_line(step: WaitingStep) -> str:
    """Return a sentence that says why the step does not start and what to do."""
    return (
        f"step {step.step} waits for the arm {step.arm}, which has had no worker for {step.for_s} s; "
        f"start a worker, or cancel the task"
    )
