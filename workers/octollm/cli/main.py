"""Entry point of `octollm`: registers the commands and turns every error into one readable sentence."""

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Annotated

import typer

from octollm.cli.output import error_line
from octollm.errors import OctoError
from octollm.settings.loader import DEBUG

COMMANDS = {
    "up": "octollm.cli.up",
    "worker": "octollm.cli.worker",
    "api": "octollm.cli.api",
    "submit": "octollm.cli.submit",
    "show": "octollm.cli.show",
    "tasks": "octollm.cli.tasks",
    "watch": "octollm.cli.watch",
    "cancel": "octollm.cli.cancel",
    "dead": "octollm.cli.dead",
    "cost": "octollm.cli.cost",
    "webhook": "octollm.cli.webhook",
    "schedules": "octollm.cli.schedules",
    "doctor": "octollm.cli.doctor",
    "topology": "octollm.cli.topology",
    "models": "octollm.cli.models",
    "demo": "octollm.demo.command",
}
"""Command to the module with the function, or the group of commands, of its name."""

app = typer.Typer(
    name="octollm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(arguments: Sequence[str]) -> None:
    """Only the command that is called: `submit` must not wait for the servers' modules to load. For help, all."""
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    names: Iterable[str] = (called,) if called in COMMANDS else COMMANDS
    for name in names:
        found = getattr(importlib.import_module(COMMANDS[name]), name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)


def _version(wanted: bool) -> None:  # noqa: FBT001 (typer calls it with the flag's value)
    if wanted:
        print(f"octollm {_installed_version()}")  # noqa: T201 (the answer of the program)
        raise typer.Exit


def _installed_version() -> str:
    try:
        return package_version("octollm")
    except PackageNotFoundError:
        return "(from a checkout that is not installed)"


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """An event-driven pipeline for AI work: vetted in Rust, planned in Python, delivered on Redis Streams."""


def main() -> None:
    """Run the command line; exit code 0 done, 1 it did not work, 2 wrong use."""
    try:
        register(sys.argv[1:])
        app()
    except OctoError as error:
        _give_up(str(error), error)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 (the last door: users get a sentence, never a stack trace)
        name = type(error).__name__
        _give_up(f"unexpected {name}: {error} (set {DEBUG}=1 to see more, and please report it)", error)


def _give_up(message: str, error: Exception) -> None:
    if os.environ.get(DEBUG):
        raise error
    error_line(message)
    sys.exit(1)
