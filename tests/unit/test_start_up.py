"""The command line starts fast: what a command does not need, it does not import. Counts modules, not milliseconds."""

import importlib
import json
import subprocess
import sys

import pytest
import typer

from octollm.cli.main import COMMANDS

SERVER_PACKAGES = {
    "alembic",
    "anthropic",
    "asyncpg",
    "fastapi",
    "faststream",
    "jsonschema_rs",
    "numpy",
    "openai",
    "qdrant_client",
    "redis",
    "sqlalchemy",
    "structlog",
    "tokenizers",
    "uvicorn",
    "uvloop",
}
SERVER_SIDE = {
    *("api", "arms", "consumer", "database", "devstack"),
    *("memory", "models", "orchestrator", "runtime", "steps"),
}
SLOW_PACKAGES = {"asyncio", "httpx", "httpx2", "pydantic", "rich", "yaml"}
RUN = """
import json, sys
from octollm.cli.main import main
sys.argv = ["octollm", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""


def imported_by(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("unknown",)])
def test_help_imports_no_command(arguments):
    modules = imported_by(*arguments)
    assert "typer" in modules
    assert modules & (SERVER_PACKAGES | SLOW_PACKAGES) == set()
    assert {name for name in modules if name.startswith("octollm.")} == {
        "octollm.cli", "octollm.cli.main", "octollm.errors",
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [("tasks",), ("show", "x"), ("submit", "--goal", "g"), ("watch", "x"), ("cancel", "x"), ("dead", "ls")]
)
def test_a_client_command_imports_no_server(arguments):
    modules = imported_by(*arguments)
    assert {"httpx2", "octollm.client"} <= modules
    assert modules & (SERVER_PACKAGES | {"httpx"}) == set()
    servers = tuple(f"octollm.{name}" for name in SERVER_SIDE)
    assert {name for name in modules if name.startswith(servers)} == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_the_first_line_of_its_own(name):
    command = getattr(importlib.import_module(COMMANDS[name].module), name)
    own = command.info.help if isinstance(command, typer.Typer) else command.__doc__
    assert COMMANDS[name].help == own.splitlines()[0]
    assert len(COMMANDS[name].help) <= 66  # longer ones are cut off at 80 columns
