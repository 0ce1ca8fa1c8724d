"""`octollm submit`: sends one task to the reflex."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from octollm.cli.connect import connect
from octollm.cli.lists import ahead
from octollm.cli.output import JsonOption, emit_json, note, out, pairs
from octollm.cli.show import print_status
from octollm.contracts import plain, strict_json
from octollm.errors import ContractError

Source = Annotated[str | None, typer.Argument(metavar="[FILE]", help="The whole task as JSON; - is standard input.")]
Goal = Annotated[str | None, typer.Option(help="What is wanted, in words.")]
Kind = Annotated[str | None, typer.Option(help="Which recipe plans it.")]
Input = Annotated[str | None, typer.Option("--input", metavar="JSON", help="Input of the recipe, a JSON object.")]
File = Annotated[str | None, typer.Option("--file", metavar="FILE", help="The same as the argument FILE.")]
Key = Annotated[str | None, typer.Option(help="Sent twice with the same key, it is one task.")]
Durability = Annotated[
    str | None,
    typer.Option(
        metavar="fsync|replicated|stored", help="Answer once it is as safe; docs/guarantees.md tells them apart."
    ),
]
Priority = Annotated[str | None, typer.Option(metavar="high|normal|low", help="Which stream it travels on.")]
Deadline = Annotated[int | None, typer.Option(metavar="SECONDS", min=1, max=604800, help="After that it expires.")]
NotBefore = Annotated[
    str | None, typer.Option(metavar="TIME", help="Begin no earlier: +10m, +2h, or a time like 2026-01-31T12:00:00Z.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 unless it succeeded.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="How long --wait waits.")]
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
    wait: Wait = False,
    timeout: Timeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Send a task: from options, from a file, or from standard input (-)."""
    if source is not None and file is not None:
        raise typer.BadParameter("give the file once, as argument or with --file", param_hint="--file")
    path = source if source is not None else file
    parts: dict[str, Any] = {"goal": goal, "kind": kind, "priority": priority, "deadline_s": deadline}
    parts["not_before"] = ahead(not_before, "--not-before")
    given = {name: value for name, value in parts.items() if value is not None}
    if path is not None:
        if given or input_json is not None:
            raise typer.BadParameter("a file holds the whole task: leave out --goal, --kind, --input and the like")
        body = _read(path)
    else:
        if goal is None:
            raise typer.BadParameter("say what is wanted with --goal, or name a file (- for standard input)")
        _refuse_bytes_that_are_no_text(given)
        body = orjson.dumps(given if input_json is None else {**given, "input": _parsed(input_json)})
    # A header takes no more than this; the reflex says the same to those who get as far as to ask it.
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


def _refuse_bytes_that_are_no_text(given: dict[str, Any]) -> None:
    """Arguments are bytes; what is not UTF-8 among them arrives as lone surrogates, which no JSON can carry."""
    for name, value in given.items():
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise typer.BadParameter("is not UTF-8 text", param_hint=f"--{name}") from error


def _read(path: str) -> bytes:
    """The bytes as they are: the reflex judges them, and it judges bytes."""
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


def _parsed(text: str) -> dict[str, Any]:
    try:
        raw = text.encode()
        strict_json.check(raw)
        value = orjson.loads(raw)
    except (ContractError, UnicodeEncodeError, orjson.JSONDecodeError) as error:
        raise typer.BadParameter(f"not valid JSON: {error}", param_hint="--input") from error
    if not isinstance(value, dict):
        raise typer.BadParameter('must be a JSON object, like {"text": "..."}', param_hint="--input")
    return value
