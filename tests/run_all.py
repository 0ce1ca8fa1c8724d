"""Runs every check and every test, goes on after a failure, and ends with one line: `N passed, M failed`.

Owns the order, the counting and the exit code. Each check counts as one; test runners are counted test by
test. A skipped or ignored test counts as failed: what does not run proves nothing.
"""

import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "logs"
SCRATCH = ROOT / "build" / "scratch"
JUNIT = LOGS / "pytest.xml"
BIN = Path(sys.executable).parent

Command = Sequence[str | Path]


@dataclass(frozen=True)
class Count:
    """How many passed and how many did not."""

    passed: int
    failed: int

    def __add__(self, other: "Count") -> "Count":
        """Both together."""
        return Count(self.passed + other.passed, self.failed + other.failed)


@dataclass(frozen=True)
class Stage:
    """One command; `count` reads its numbers from its output, without it the stage itself counts as one."""

    name: str
    command: Command
    count: Callable[[str], Count] | None = None


def cargo_count(output: str) -> Count:
    """Adds up the lines `test result: ok. 3 passed; 0 failed; 0 ignored; ...` of all test programs."""
    total = Count(0, 0)
    for match in re.finditer(r"^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored", output, re.MULTILINE):
        total += Count(int(match[1]), int(match[2]) + int(match[3]))
    return total


def pytest_count(_output: str) -> Count:
    """From pytest's own report; nothing when it did not get as far as writing one."""
    try:
        suites = ET.parse(JUNIT).getroot().iter("testsuite")  # noqa: S314 (our own file, written a moment ago)
    except (OSError, ET.ParseError):
        return Count(0, 0)
    total = Count(0, 0)
    for suite in suites:
        tests, *bad = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
        total += Count(max(0, tests - sum(bad)), sum(bad))
    return total


CHECKS = (
    Stage("rustfmt", ["cargo", "fmt", "--all", "--check"]),
    Stage("clippy", ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
    Stage("ruff check", [BIN / "ruff", "check", "."]),
    Stage("ruff format", [BIN / "ruff", "format", "--check", "."]),
    Stage("mypy", [BIN / "mypy"]),
    Stage("import-linter", [BIN / "lint-imports"]),
    Stage("generated code", [sys.executable, "schemas/generate.py", "--check"]),
)
TESTS = (
    Stage("cargo test", ["cargo", "test", "--workspace", "--locked", "--no-fail-fast"], cargo_count),
    # Two at a time: tests mostly wait, for servers to start and leases to end. A file stays together, for its fixtures.
    Stage(
        "pytest",
        [sys.executable, "-m", "pytest", "-n2", "--dist=loadfile", f"--junitxml={JUNIT}", "--durations=15"],
        pytest_count,
    ),
)


def run(stage: Stage) -> Count:
    """Runs one stage; shows test runners as they go, checks only when they fail."""
    log = LOGS / f"{stage.name.replace(' ', '-')}.log"
    began = time.monotonic()
    print(f"==> {stage.name}", flush=True)
    lines: list[str] = []
    live = stage.count is not None or stage.name == "clippy"
    try:
        with subprocess.Popen(
            [str(part) for part in stage.command],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env={
                **os.environ,
                "CARGO_TERM_COLOR": "never",
                "PYTHONUNBUFFERED": "1",
                "PYTEST_DEBUG_TEMPROOT": str(SCRATCH),  # nothing is left outside the clone
            },
        ) as process:
            for line in process.stdout or ():
                lines.append(line)
                if live:
                    print(line, end="", flush=True)
        code = process.returncode
    except OSError as error:
        lines.append(f"{stage.command[0]} cannot be run: {error.strerror}\n")
        code = 127
    output = "".join(lines)
    log.write_text(output)
    if code != 0:
        if not live or not lines or code == 127:
            print(output, end="")
        print(f"--- {stage.name} failed (exit code {code}); its whole output is in {log.relative_to(ROOT)}")
    count = stage.count(output) if stage.count else Count(int(code == 0), int(code != 0))
    if code != 0 and count.failed == 0:
        count += Count(0, 1)  # it broke before it could count
    if code == 0 and count == Count(0, 0):
        count = Count(0, 1)  # a runner that finds no test has not tested
    print(f"    {count.passed} passed, {count.failed} failed, {time.monotonic() - began:.1f} s", flush=True)
    return count


def main() -> int:
    """Runs what the arguments say; 0 only when nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only-checks", action="store_true", help="leave the tests out")
    options = parser.parse_args()
    for folder in (LOGS, SCRATCH):
        folder.mkdir(parents=True, exist_ok=True)
    JUNIT.unlink(missing_ok=True)
    total = Count(0, 0)
    failing = []
    for stage in CHECKS if options.only_checks else (*CHECKS, *TESTS):
        count = run(stage)
        total += count
        if count.failed:
            failing.append(stage.name)
    print(f"failing: {', '.join(failing)}" if failing else "nothing failed")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
