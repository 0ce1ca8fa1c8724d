"""The worked examples of docs/examples: shown files equal the files next to them, and commands print what is shown."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.programs import up
from tests.helpers.waiting import TIMEOUT_S

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.md"))
SHOWN = re.compile(
    r"(?:^`(?P<file>[^`\n]+)`:\n\n)?^```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
ACTIVATE, START = ". .venv/bin/activate\n", "octollm up\n"


@dataclass(frozen=True)
class Block:
    """A fenced block, and the file that it is said to show."""

    language: str
    text: str
    file: str | None

    @property
    def starts(self) -> bool:
        """Whether its commands end with the start of OctoLLM."""
        return self.language == "sh" and self.text.endswith(START)


def blocks(example: Path) -> list[Block]:
    found = SHOWN.finditer(example.read_text())
    return [Block(one["language"], one["text"], one["file"]) for one in found]


@dataclass(frozen=True)
class Shell:
    """A terminal in a folder that looks like the clone, with the environment activated."""

    folder: Path
    environment: dict[str, str]

    def run(self, commands: str) -> str:
        """What they print, also as errors."""
        done = subprocess.run(
            ["bash", "-c", commands],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * TIMEOUT_S,
            check=False,
        )
        return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def other_terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Next to one running OctoLLM that the commands of all examples, one after the other, have set up."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("docs", "recipes", "streams.yaml", "webhooks.yaml"):
        (folder / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = Shell(folder, {**os.environ, "PATH": path, "COLUMNS": "200"})
    commands = [block.text for example in EXAMPLES for block in blocks(example) if block.starts]
    assert len(commands) == len(EXAMPLES)
    assert all(one.startswith(ACTIVATE) for one in commands)
    set_up = "".join(one.removeprefix(ACTIVATE).removesuffix(START) for one in commands)
    (folder / "build").mkdir()
    said = shell.run(f"set -e\n{set_up}env -0 > environment\n")
    assert (folder / "environment").exists(), said
    pairs = (one.split("=", 1) for one in (folder / "environment").read_text().split("\0") if one)
    environment = {name: value for name, value in pairs if value != os.environ.get(name) and name != "PWD"}
    with up(folder, **environment) as running:
        yield Shell(folder, {**shell.environment, **environment, "OCTOLLM_REFLEX_URL": running.http})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_shown_files_equal_the_files_next_to_the_page(example: Path):
    shown = {block.file: block.text for block in blocks(example) if block.file}
    folder = example.with_suffix("")
    files = {str(path.relative_to(ROOT)): path.read_text() for path in folder.iterdir() if path.is_file()}
    assert files
    assert shown == files
    assert [block for block in blocks(example) if (block.file is None) != (block.language in {"sh", "text"})] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_as_it_says(example: Path, other_terminal: Shell):
    reported = [block for block in blocks(example) if not block.file and not block.starts]
    commands, outputs = reported[::2], reported[1::2]
    assert [block.language for block in commands] == ["sh"] * len(outputs)
    assert [block.language for block in outputs] == ["text"] * len(commands)
    assert commands
    for command, output in zip(commands, outputs, strict=True):
        said = other_terminal.run(command.text)
        assert output.text.rstrip() in said, f"{command.text}printed\n{said}"
