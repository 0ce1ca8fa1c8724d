"""`octollm dead redrive` and `octollm dead drop`, for one dead letter or all that match a filter."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import typer

from octollm.cli.client import connect
from octollm.cli.lists import Since, Until, parse_past_time, present, table
from octollm.cli.output import JsonOption, emit_json, err, note, out
from octollm.client import Client, DeadLetterFilter, DeadLetterItem

_COLUMNS = ("dead_letter", "task", "run", "accepted", "detail")
Numbers = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=1, help="The ids that `ls` printed.")]
Reason = Annotated[str | None, typer.Option(help="All dead letters with this reason, for example schema.")]
Task = Annotated[str | None, typer.Option(help="All dead letters of this task.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print which dead letters would be affected.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
AsJson = Annotated[bool, typer.Option("--json", help=JsonOption)]


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which dead letters to act on, by id or by filter, and how."""

    numbers: Sequence[int]
    filters: DeadLetterFilter
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
    """Run the tasks of dead letters again, each from the beginning.

    The earlier runs stay in the history of the task.
    """
    redriven: dict[tuple[str, int], dict[str, Any]] = {}

    def redrive_one(client: Client, dead_letter: DeadLetterItem) -> dict[str, Any]:
        if dead_letter.task is None or dead_letter.run is None:
            return {"accepted": False, "detail": "it belongs to no task; submit the task again, then drop it"}
        run = dead_letter.task, dead_letter.run
        ident = {"task": dead_letter.task, "run": dead_letter.run}
        if dead_letter.redriven_at is not None or dead_letter.dropped_at is not None:
            return {**ident, "accepted": False, "detail": "it was already redriven or dropped"}
        if run not in redriven:  # several dead letters of one run need one redrive
            answer = client.redrive(dead_letter.task, dead_letter.run)
            redriven[run] = {"run": answer.run, "accepted": answer.accepted, "detail": answer.detail}
        return {**ident, **redriven[run]}

    _apply(
        "redrive", _Selection(numbers or [], _filters(reason, task, since, until), dry_run, yes, as_json), redrive_one
    )


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
    """Mark dead letters as needing no action.

    They stay stored, and only `ls --all` lists them.
    """

    def drop_one(client: Client, dead_letter: DeadLetterItem) -> dict[str, Any]:
        answer = client.drop(dead_letter.id)
        detail = None if answer.accepted else "it was already dropped"
        return {"task": dead_letter.task, "run": dead_letter.run, "accepted": answer.accepted, "detail": detail}

    _apply("drop", _Selection(numbers or [], _filters(reason, task, since, until), dry_run, yes, as_json), drop_one)


def _filters(reason: str | None, task: str | None, since: str | None, until: str | None) -> DeadLetterFilter:
    times = {"since": parse_past_time(since, "--since"), "until": parse_past_time(until, "--until")}
    return cast("DeadLetterFilter", present(reason=reason, task=task, **times))


def _apply(verb: str, selection: _Selection, action: Callable[[Client, DeadLetterItem], dict[str, Any]]) -> None:
    """Run `action` on every selected dead letter and print the results.

    The exit code is 1 if one was not accepted.
    """
    if bool(selection.numbers) == bool(selection.filters):
        raise typer.BadParameter("give ids, or select dead letters with --reason, --task, --since or --until")
    with connect() as client:
        dead_letters = list(_select(client, selection))
        if not dead_letters:
            note("no dead letters match")
        if dead_letters and selection.filters and not (selection.yes or selection.dry_run):
            _confirm(verb, len(dead_letters))
        rows = [
            {"dead_letter": one.id, **(_preview(one) if selection.dry_run else action(client, one))}
            for one in dead_letters
        ]
    if selection.as_json:
        emit_json({"items": rows, "dry_run": selection.dry_run})
    elif rows:
        out().print(table(rows, _COLUMNS))
    if selection.dry_run:
        note(f"--dry-run: nothing was done; {len(rows)} dead letters would be affected by {verb}")
    elif any(not row["accepted"] for row in rows):
        raise typer.Exit(1)


def _select(client: Client, selection: _Selection) -> Iterator[DeadLetterItem]:
    if selection.numbers:
        # Fetched before anything is done, so that an unknown id stops the command; duplicates count once.
        return iter([client.dead_letter(number) for number in dict.fromkeys(selection.numbers)])
    return client.dead_letters(**selection.filters)


def _preview(dead_letter: DeadLetterItem) -> dict[str, Any]:
    detail = f"{dead_letter.reason}: {dead_letter.message}"
    return {"task": dead_letter.task, "run": dead_letter.run, "accepted": False, "detail": detail}


def _confirm(verb: str, count: int) -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            f"{count} dead letters match; repeat with --yes to {verb} them, or with --dry-run to list them"
        )
    err().print(f"{verb} {count} dead letters?")
    typer.confirm("continue", abort=True, err=True)
