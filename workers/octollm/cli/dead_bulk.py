"""`octollm dead redrive` and `octollm dead drop`: what is to become of dead letters, one by one or all that fit."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import typer

from octollm.cli.connect import connect
from octollm.cli.lists import Since, Until, given, moment, table
from octollm.cli.output import JsonOption, emit_json, err, note, out
from octollm.client import Client, DeadLetterItem, LetterFilter

_COLUMNS = ("letter", "task", "run", "accepted", "detail")
Numbers = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="The ids that `ls` printed.")]
Reason = Annotated[str | None, typer.Option(help="All that were given up on for this reason, like schema.")]
Task = Annotated[str | None, typer.Option(help="All of this task.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which ones it would be.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before doing it to all that fit.")]
AsJson = Annotated[bool, typer.Option("--json", help=JsonOption)]


@dataclass(frozen=True, slots=True)
class _Wish:
    """Which letters, and how."""

    numbers: Sequence[int]
    which: LetterFilter
    dry_run: bool
    yes: bool
    as_json: bool


def redrive(
    numbers: Numbers = None,
    *,
    reason: Reason = None,
    task: Task = None,
    since: Since = None,
    until: Until = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Run the tasks of dead letters again, each from the beginning; what was tried before stays as history."""
    asked: dict[tuple[str, int], dict[str, Any]] = {}

    def one(client: Client, letter: DeadLetterItem) -> dict[str, Any]:
        if letter.task is None or letter.run is None:
            return {"accepted": False, "detail": "it belongs to no task; submit it again, then drop it"}
        about = {"task": letter.task, "run": letter.run}
        if letter.redriven_at is not None or letter.dropped_at is not None:
            return {**about, "accepted": False, "detail": "it was redriven or dropped before"}
        # Several letters of one run are one wish.
        if (letter.task, letter.run) not in asked:
            answer = client.redrive(letter.task, letter.run)
            asked[letter.task, letter.run] = {"run": answer.run, "accepted": answer.accepted, "detail": answer.detail}
        return {**about, **asked[letter.task, letter.run]}

    _do("redrive", _Wish(numbers or [], _which(reason, task, since, until), dry_run, yes, as_json), one)


def drop(
    numbers: Numbers = None,
    *,
    reason: Reason = None,
    task: Task = None,
    since: Since = None,
    until: Until = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Say that nothing is to be done about dead letters. They are kept and only listed with `ls --all`."""

    def one(client: Client, letter: DeadLetterItem) -> dict[str, Any]:
        answer = client.drop(letter.id)
        detail = None if answer.accepted else "it was dropped before"
        return {"task": letter.task, "run": letter.run, "accepted": answer.accepted, "detail": detail}

    _do("drop", _Wish(numbers or [], _which(reason, task, since, until), dry_run, yes, as_json), one)


def _which(reason: str | None, task: str | None, since: str | None, until: str | None) -> LetterFilter:
    times = {"since": moment(since, "--since"), "until": moment(until, "--until")}
    return cast("LetterFilter", given(reason=reason, task=task, **times))


def _do(word: str, wish: _Wish, one: Callable[[Client, DeadLetterItem], dict[str, Any]]) -> None:
    if bool(wish.numbers) == bool(wish.which):
        raise typer.BadParameter("name letters by id, or say which with --reason, --task, --since or --until")
    with connect() as client:
        letters = list(_letters(client, wish))
        if not letters:
            note("there are no such dead letters")
        if letters and wish.which and not (wish.yes or wish.dry_run):
            _confirm(word, len(letters))
        rows = [{"letter": letter.id, **(_plan(letter) if wish.dry_run else one(client, letter))} for letter in letters]
    if wish.as_json:
        emit_json({"items": rows, "dry_run": wish.dry_run})
    elif rows:
        out().print(table(rows, _COLUMNS))
    if wish.dry_run:
        note(f"nothing was asked for: --dry-run; {len(rows)} to {word}")
    elif any(not row["accepted"] for row in rows):
        raise typer.Exit(1)


def _letters(client: Client, wish: _Wish) -> Iterator[DeadLetterItem]:
    if wish.numbers:
        # Each once, in the order they were named; an unknown one is said before anything is done.
        return iter([client.dead_letter(number) for number in dict.fromkeys(wish.numbers)])
    return client.dead_letters(**wish.which)


def _plan(letter: DeadLetterItem) -> dict[str, Any]:
    return {"task": letter.task, "run": letter.run, "accepted": False, "detail": f"{letter.reason}: {letter.message}"}


def _confirm(word: str, count: int) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{count} letters fit; say --yes to {word} them, or --dry-run to look at them first")
    err().print(f"{word} {count} dead letters?")
    typer.confirm("go on", abort=True, err=True)
