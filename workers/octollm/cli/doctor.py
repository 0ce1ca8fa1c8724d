"""`octollm doctor`: checks the installation and says what to fix."""

import asyncio
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from octollm.cli.output import JsonOption, clean, emit_json, out
from octollm.devstack.doctor import Check, Verdict, examine

_STYLE = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def doctor(*, as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False) -> None:
    """Check everything that OctoLLM needs to run.

    The exit code is 1 if a check fails.
    """
    checks = asyncio.run(examine())
    failed = any(check.verdict is Verdict.FAIL for check in checks)
    if as_json:
        emit_json({"ok": not failed, "checks": [check.as_object() for check in checks]})
    else:
        _print(checks)
    if failed:
        raise typer.Exit(1)


def _print(checks: list[Check]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        text = clean(check.found) if check.todo is None else f"{clean(check.found)}\n-> {clean(check.todo)}"
        table.add_row(Text(check.verdict.value, style=_STYLE[check.verdict]), check.name, Text(text))
    out().print(table)
