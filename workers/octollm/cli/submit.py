"""`octollm submit`: submits one task to the reflex."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from octollm.cli.client import connect
from octollm.cli.lists import parse_future_time, present
from octollm.cli.output import JsonOption, emit_json, note, out, pairs
from octollm.cli.show import print_status
from octollm.contracts import plain, strict_json
from octollm.errors import ContractError

Source = Annotated[str | None, typer.Argument(metavar="[FILE]", help="The whole task as JSON; - is standard input.")]
Goal = Annotated[str | None, typer.Option(help="The goal of the task, in words.")]
Kind = Annotated[str | None, typer.Option(help="The recipe that plans the task.")]
Input = Annotated[str | None, typer.Option("--input", metavar="JSON", help="The input of the recipe, a JSON object.")]
File = Annotated[str | None, typer.Option("--file", metavar="FILE", help="The same as the argument FILE.")]
Key = Annotated[str | None, typer.Option(help="Idempotency key: submissions with the same key are one task.")]
Durability = Annotated[
    str | None,
    typer.Option(
        metavar="fsync|replicated|stored",
        help="Answer only after the task is stored this safely; docs/durability.md explains the modes.",
    ),
]
Priority = Annotated[str | None, typer.Option(metavar="high|normal|low", help="The priority of the task.")]
Deadline = Annotated[int | None, typer.Option(metavar="SECONDS", min=1, max=604800, help="Time until it expires.")]
NotBefore = Annotated[
    str | None, typer.Option(metavar="TIME", help="Earliest start: +10m, +2h, or a time like 2026-01-31T12:00:00Z.")
]
Callback = Annotated[
    str | None, typer.Option(metavar="URL", help="Where a signed message is sent once the task has ended.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the task has ended; exit code 1 unless it succeeded.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Maximum time for --wait.")]
AsJson = Annotated[bool, typer.Option("--json", help=JsonOption)]

_KEY = re.compile(r"[!-~]{1,255}")


def submit(
    source: Source = None,
    *,
    goal: Goal = None,
    kind: Kind = None,
    input_json: Input = None,
    file: File = None,
    idempotency_key: Key = None,
    durability: Durability = None,
    priority: Priority = None,
    deadline: Deadline = None,
    not_before: NotBefore = None,
    callback: Callback = None,
    wait: Wait = False,
    timeout: Timeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Submit a task from options, a file, or standard input (-)."""
    if source is not None and file is not None:
        raise typer.BadParameter("name the file once, as the argument or with --file", param_hint="--file")
    path = source if source is not None else file
    start = parse_future_time(not_before, "--not-before")
    fields: dict[str, Any] = present(goal=goal, kind=kind, priority=priority, deadline_s=deadline, not_before=start)
    if callback is not None:
        fields["callback"] = {"url": callback}
    if path is not None:
        if fields or input_json is not None:
            raise typer.BadParameter("a file contains the whole task: leave out --goal, --kind, --input and the like")
        body = _read(path)
    else:
        if goal is None:
            raise typer.BadParameter("give the goal with --goal, or name a file (- for standard input)")
        _require_utf8(fields)
        body = orjson.dumps(fields if input_json is None else {**fields, "input": _parse_input(input_json)})
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise typer.BadParameter("must be 1 to 255 visible ASCII characters", param_hint="--idempotency-key")
    with connect() as client:
        accepted = client.submit_json(body, idempotency_key=idempotency_key, durability=durability)
        if not wait:
            if as_json:
                emit_json(plain(accepted))
            else:
                out().print(pairs(list(plain(accepted).items())))
            return
        if not as_json:
            note(f"task {accepted.task} accepted, waiting up to {timeout:g} s")
        status = client.wait(accepted.task, timeout)
    print_status(status, as_json=as_json)
    if status.state != "succeeded":
        raise typer.Exit(1)


def _require_utf8(fields: dict[str, Any]) -> None:
    """Raise BadParameter for an argument that is not UTF-8.

    Python turns it into surrogates, which JSON cannot hold.
    """
    for name, value in fields.items():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise typer.BadParameter("is not UTF-8 text", param_hint=f"--{name}") from error


def _read(path: str) -> bytes:
    """Return the bytes unchanged: the reflex checks them."""
    if path == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise typer.BadParameter(
                "standard input is a terminal; pipe the task in, or name a file", param_hint="FILE"
            )
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint="FILE") from error


def _parse_input(text: str) -> dict[str, Any]:
    try:
        raw = text.encode()
        strict_json.check(raw)
        value = orjson.loads(raw)
    except (ContractError, UnicodeEncodeError, orjson.JSONDecodeError) as error:
        raise typer.BadParameter(f"not valid JSON: {error}", param_hint="--input") from error
    if not isinstance(value, dict):
        raise typer.BadParameter('must be a JSON object, like {"text": "..."}', param_hint="--input")
    return value
