"""`octollm show`: one task's status and result."""

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from octollm.cli.connect import connect
from octollm.cli.output import JsonOption, clean, emit_json, out, pairs, pretty_json
from octollm.contracts import TaskStatus, WaitingStep, plain

_FACTS = ("task", "tenant", "kind", "state", "reason", "detail", "run", "created_at", "updated_at")
_STEP_FACTS = ("step", "arm", "round", "attempt", "state", "duration_ms")


def show(
    task: Annotated[str, typer.Argument(help="The id that `submit` printed.")],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 unless it succeeded.")] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long --wait waits.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """Show what became of a task."""
    with connect() as client:
        status = client.wait(task, timeout) if wait else client.status(task)
    print_status(status, as_json=as_json)
    if wait and status.state != "succeeded":
        raise typer.Exit(1)


def print_status(status: TaskStatus, *, as_json: bool) -> None:
    """A status as JSON, or its facts, steps and answer for a reader."""
    told = plain(status)
    if as_json:
        emit_json(told)
        return
    console = out()
    facts: list[tuple[str, object]] = [(name, told[name]) for name in _FACTS if name in told]
    console.print(pairs([*facts, *(("waiting", waiting_line(step)) for step in status.waiting or ())]))
    result = told.get("result")
    if result is None:
        return
    if result["steps"]:
        console.print()
        console.print(_steps(result["steps"]))
    console.print()
    console.print(Text("answer", style="bold"))
    console.print(Text(clean(pretty_json(result["answer"]))))


def waiting_line(step: WaitingStep) -> str:
    """Why nothing happens, and what helps."""
    return (
        f"step {step.step} waits for the arm {step.arm}, which has had no worker for {step.for_s} s; "
        f"start one, or cancel the task"
    )


def _steps(steps: list[dict[str, Any]]) -> Table:
    columns = [name for name in _STEP_FACTS if any(name in step for step in steps)]
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for step in steps:
        table.add_row(*(Text(clean(step.get(name, ""))) for name in columns))
    return table
