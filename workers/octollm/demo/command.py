"""The command: a stack, all tasks, a table, the answers, and a last line with the verdict."""

import asyncio
import os
import secrets
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import uvloop
from rich.table import Table
from rich.text import Text

from octollm.cli.output import JsonOption, clean, emit_json, note, out, pretty_json
from octollm.demo.find import WEBHOOK_SECRET, Stores, require_postgres, run_task
from octollm.demo.outcome import DemoTask, Outcome
from octollm.demo.tasks import demo_tasks
from octollm.devstack.stack import Stack
from octollm.errors import OctoError
from octollm.observability.logging import configure_logging
from octollm.settings.loader import Settings, load_settings
from octollm.settings.redis_url import redis_url

_LONGEST_ANSWER = 1500


@dataclass(frozen=True)
class Row:
    """One task and what became of it."""

    task: DemoTask
    seconds: float
    outcome: Outcome | None
    fault: str | None
    """Why it is not as expected; None: it is."""

    @property
    def ended(self) -> str:
        """State and reason in one."""
        if self.outcome is None:
            return "nothing"
        return ": ".join(part for part in (self.outcome.state, self.outcome.reason) if part)


def demo(
    *,
    against: Annotated[
        bool,
        typer.Option(
            "--against", help="Use the stack that runs where OCTOLLM_REFLEX_URL, _REDIS_URL and _POSTGRES_DSN say."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """Run the demo tasks and check every outcome."""
    settings = load_settings()
    # What the workers have to say below a warning would drown the demo.
    configure_logging(settings.log.model_copy(update={"level": "error"}))
    rows = uvloop.run(_against(settings) if against else _run(settings))
    good = sum(row.fault is None for row in rows)
    if as_json:
        emit_json({"tasks": [_as_json(row) for row in rows], "as_expected": good})
    else:
        _print(rows)
        out().print(f"demo: {len(rows)} tasks, {good} as expected")
    if good != len(rows):
        raise typer.Exit(1)


async def _run(settings: Settings) -> list[Row]:
    os.environ.setdefault(WEBHOOK_SECRET, secrets.token_hex(16))  # for the reflex, a child of this process
    async with Stack(settings, progress=note) as running:
        stores = Stores(running.http_url, redis_url(running.settings.redis), running.postgres_dsn)
        work = asyncio.ensure_future(_all(stores))  # noqa: TID251  awaited below
        broken = asyncio.ensure_future(running.wait())  # noqa: TID251  awaited below
        try:
            await asyncio.wait((work, broken), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await broken  # raises: a part of the stack has ended
            return await work
        finally:
            for one in (work, broken):
                one.cancel()
            await asyncio.gather(work, broken, return_exceptions=True)


async def _against(settings: Settings) -> list[Row]:
    await require_postgres(settings.postgres.dsn)
    return await _all(Stores(settings.reflex.url, redis_url(settings.redis), settings.postgres.dsn))


async def _all(stores: Stores) -> list[Row]:
    rows = []
    for task in demo_tasks():
        if task.source == "webhook" and WEBHOOK_SECRET not in os.environ:
            note(f"task {task.name} is left out: {WEBHOOK_SECRET} is not set to what the reflex has")
            continue
        note(f"task {task.name} ({task.source})")
        rows.append(await _one(task, stores))
    return rows


async def _one(task: DemoTask, stores: Stores) -> Row:
    try:
        outcome, seconds = await run_task(task, stores)
    except OctoError as error:
        return Row(task, 0.0, None, str(error))
    row = Row(task, seconds, outcome, None)
    fault = f"expected {task.expected}" if row.ended != task.expected else _fault(task, outcome)
    return Row(task, seconds, outcome, fault)


def _fault(task: DemoTask, outcome: Outcome) -> str | None:
    try:
        return task.fault(outcome)
    except (KeyError, TypeError) as error:
        return f"the answer has not the form it has to have ({error!r})"


def _print(rows: list[Row]) -> None:
    table = Table(pad_edge=False)
    for name in ("task", "kind", "source", "steps", "outcome", "time", "result", ""):
        table.add_column(name, overflow="fold")
    for row in rows:
        cells = (
            row.task.name,
            row.task.kind,
            row.task.source,
            str(row.outcome.steps) if row.outcome else "",
            row.ended,
            f"{row.seconds * 1000:.0f} ms",
            row.outcome.where if row.outcome else "",
            "as expected" if row.fault is None else row.fault,
        )
        table.add_row(*(Text(clean(cell)) for cell in cells))
    console = out()
    console.print(table)
    for row in rows:
        if row.outcome is None:
            continue
        console.print()
        console.print(Text(row.task.name, style="bold"))
        if row.outcome.detail:
            console.print(Text(clean(row.outcome.detail)))
        if row.outcome.answer is not None:
            console.print(Text(clean(_readable(row.outcome.answer))))
    console.print()


def _readable(answer: Any) -> str:  # noqa: ANN401  any JSON value
    """Long texts with their line breaks; the rest as JSON."""
    if not isinstance(answer, dict):
        return pretty_json(answer)[:_LONGEST_ANSWER]
    lines = []
    for name, value in answer.items():
        text = value if isinstance(value, str) else pretty_json(value)
        indented = text.strip()[:_LONGEST_ANSWER].replace("\n", "\n    ")
        lines.append(f"  {name}: " + (f"\n    {indented}" if "\n" in indented else indented))
    return "\n".join(lines)


def _as_json(row: Row) -> dict[str, Any]:
    found = row.outcome
    return {
        "task": row.task.name,
        "kind": row.task.kind,
        "source": row.task.source,
        "outcome": row.ended,
        "ms": round(row.seconds * 1000),
        "where": found.where if found else None,
        "detail": found.detail if found else None,
        "answer": found.answer if found else None,
        "as_expected": row.fault is None,
        "fault": row.fault,
    }
