"""Entry point of `octollm`.

It registers the called command and prints every error as one readable sentence.

It imports no command at the top: `octollm --help` and commands that only talk HTTP must start fast.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from octollm.errors import OctoError


@dataclass(frozen=True, slots=True)
class Command:
    """The module that defines a command, and the first line of its help."""

    module: str
    """Defines a function, or a `typer.Typer` group, with the command's name."""
    help: str


COMMANDS = {
    "up": Command("octollm.cli.up", "Start Redis, Postgres, both Rust programs and all workers."),
    "worker": Command("octollm.cli.worker", "Run one role until SIGTERM or Ctrl-C."),
    "api": Command("octollm.cli.api", "Serve the HTTP API over Postgres until SIGTERM or Ctrl-C."),
    "submit": Command("octollm.cli.submit", "Submit a task from options, a file, or standard input (-)."),
    "show": Command("octollm.cli.show", "Show the status and result of a task."),
    "tasks": Command("octollm.cli.tasks", "List tasks, newest first."),
    "watch": Command("octollm.cli.watch", "Follow the events of a task until it ends."),
    "cancel": Command("octollm.cli.cancel", "Cancel a task."),
    "dead": Command("octollm.cli.dead", "Inspect dead letters, run their tasks again, or drop them."),
    "callbacks": Command("octollm.cli.callbacks", "Inspect callbacks, send them again, and enable endpoints."),
    "cost": Command("octollm.cli.cost", "Show model calls with their tokens and cost."),
    "keys": Command("octollm.cli.keys", "Create, list, revoke and rotate API keys."),
    "webhook": Command("octollm.cli.webhook", "Send signed webhooks to test a source."),
    "schedules": Command("octollm.cli.schedules", "List the schedules and when they are due next."),
    "doctor": Command("octollm.cli.doctor", "Check everything that OctoLLM needs to run."),
    "topology": Command("octollm.cli.topology", "Check the topology and draw it."),
    "models": Command("octollm.cli.models", "Download and list the files of the embedding model."),
    "demo": Command("octollm.demo.command", "Run the demo tasks and check every outcome."),
}
"""Every command by name. `octollm --help` prints this table and imports none of the modules."""

# rich_markup_mode: typer's help through rich would take 120 ms of CPU more than plain help.
app = typer.Typer(
    name="octollm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(arguments: Sequence[str]) -> None:
    """Register the command that `arguments` (without the program name) call, and import only its module.

    Without a known command, for help or an error message, every command is registered by its name and help alone.
    """
    app.registered_commands.clear()
    app.registered_groups.clear()
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    if called in COMMANDS:
        found = getattr(importlib.import_module(COMMANDS[called].module), called)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=called)
        else:
            app.command(called)(found)
        return
    for name, command in COMMANDS.items():
        app.command(name, help=command.help)(_not_called)


def _not_called() -> None:
    """Stand in for a command that only appears in the help."""


def _version(wanted: bool) -> None:  # noqa: FBT001  typer passes the flag's value by position
    if wanted:
        print(f"octollm {_installed_version()}")  # noqa: T201  the output of `--version`
        raise typer.Exit


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  takes 20 ms, rarely needed

    try:
        return version("octollm")
    except PackageNotFoundError:
        return "(not installed, running from a checkout)"


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """An event-driven pipeline for AI work.

    Rust programs check submissions, Python plans the tasks, and Redis Streams deliver the steps.
    """


def main() -> None:
    """Run the command line. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C."""
    try:
        register(sys.argv[1:])
        app()
    except OctoError as error:
        _fail(error, str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001  users get a sentence instead of a stack trace
        _fail(error, f"unexpected {type(error).__name__}: {error} (please report it)")


def _fail(error: Exception, message: str) -> None:
    # Imported here because starting needs neither of them, and both are slow.
    from octollm.cli.output import error_line  # noqa: PLC0415
    from octollm.settings.loader import DEBUG  # noqa: PLC0415

    if os.environ.get(DEBUG):
        raise error
    error_line(f"{message}; set {DEBUG}=1 for the stack trace" if not isinstance(error, OctoError) else message)
    sys.exit(1)
