"""Run every check and every test, continue after a failure, and end with one line: `N passed, M failed`.

This file owns the order, the counting and the exit code. Each check counts as one; test runners are counted test by
test. A skipped or ignored test counts as failed, because a test that does not run proves nothing.

The Rust and the Python stages run at the same time: compilers need the processor, Python's tests mostly wait. The
output of a stage stays together: pytest's is shown while it runs, that of all others when they have ended.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    """Numbers of tests or checks that passed and that failed."""

    passed: int
    failed: int

    def __add__(self, other: "Count") -> "Count":
        """Add both numbers."""
        return Count(self.passed + other.passed, self.failed + other.failed)


@dataclass(frozen=True)
class Stage:
    """One command. `count` reads the numbers from its output; without `count`, the stage counts as one check."""

    name: str
    command: Command
    count: Callable[[str], Count] | None = None
    live: bool = False
    """Whether its output is shown line by line. At most one stage at a time may be live."""


def cargo_count(output: str) -> Count:
    """Add up the lines `test result: ok. 3 passed; 0 failed; 0 ignored; ...` of all test programs."""
    total = Count(0, 0)
    for match in re.finditer(r"^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored", output, re.MULTILINE):
        total += Count(int(match[1]), int(match[2]) + int(match[3]))
    return total


def pytest_count(_output: str) -> Count:
    """Count the tests in the report that pytest wrote; 0 and 0 when it ended without one."""
    try:
        suites = ET.parse(JUNIT).getroot().iter("testsuite")  # noqa: S314 (our own file, written a moment ago)
    except (OSError, ET.ParseError):
        return Count(0, 0)
    total = Count(0, 0)
    for suite in suites:
        tests, *bad = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
        total += Count(max(0, tests - sum(bad)), sum(bad))
    return total


# Compilers run at a lower priority than tests, which have deadlines.
COMPILE = ("nice", "-n", "10", "cargo")
RUST_CHECKS = (
    Stage("rustfmt", ["cargo", "fmt", "--all", "--check"]),
    Stage("clippy", [*COMPILE, "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
)
RUST_TESTS = (
    Stage("cargo test, compiled", [*COMPILE, "test", "--workspace", "--locked", "--no-run"]),
    Stage("cargo test", ["cargo", "test", "--workspace", "--locked", "--no-fail-fast"], cargo_count),
)
PYTHON_CHECKS = (
    Stage("ruff check", [BIN / "ruff", "check", "."]),
    Stage("ruff format", [BIN / "ruff", "format", "--check", "."]),
    Stage("mypy", [BIN / "mypy"]),
    Stage("import-linter", [BIN / "lint-imports"]),
    Stage("generated code", [sys.executable, "schemas/generate.py", "--check"]),
)
PYTHON_TESTS = (
    # Two at a time: tests mostly wait, for servers to start and leases to end. A file stays together, for its fixtures.
    Stage(
        "pytest",
        [sys.executable, "-m", "pytest", "-n2", "--dist=loadfile", f"--junitxml={JUNIT}", "--durations=15"],
        pytest_count,
        live=True,
    ),
)


class Screen:
    """Keeps the output of each stage together while several run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live = False
        self._held: list[str] = []
        """Output of stages that ended while another one was live."""

    def begin(self, stage: Stage) -> None:
        """Announce a stage."""
        with self._lock:
            self._live = self._live or stage.live
            print(f"==> {stage.name}", flush=True)

    def line(self, text: str) -> None:
        """Print a line of the live stage."""
        with self._lock:
            print(text, end="", flush=True)

    def end(self, stage: Stage, output: str, verdict: str) -> None:
        """Print how a stage ended, and its output, or keep that until the live stage ends."""
        with self._lock:
            if stage.live:
                self._live = False
                print(f"{output}{verdict}", flush=True)
                print("".join(self._held), end="", flush=True)
                self._held.clear()
            elif self._live and output:
                self._held.append(f"==> {stage.name}: its output\n{output}")
                print(f"{verdict}; its output is shown below", flush=True)
            else:
                print(f"{output}{verdict}", flush=True)


def run(stage: Stage, screen: Screen) -> Count:
    """Run one stage. The output of a test runner is always shown, that of a check only when it fails."""
    log = LOGS / f"{re.sub('[^a-z]+', '-', stage.name)}.log"
    began = time.monotonic()
    screen.begin(stage)
    lines: list[str] = []
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
                if stage.live:
                    screen.line(line)
        code = process.returncode
    except OSError as error:
        lines.append(f"{stage.command[0]} cannot be run: {error.strerror}\n")
        code = 127
    output = "".join(lines)
    log.write_text(output)
    count = stage.count(output) if stage.count else Count(int(code == 0), int(code != 0))
    if code != 0 and count.failed == 0:
        count += Count(0, 1)  # it broke before it could count
    if code == 0 and count == Count(0, 0):
        count = Count(0, 1)  # a runner that finds no test has not tested
    shown = ""
    if (code != 0 or stage.count) and not (stage.live and lines and code != 127):
        shown = output
    if code != 0:
        shown += f"--- {stage.name} failed (exit code {code}); its whole output is in {log.relative_to(ROOT)}\n"
    took_s = time.monotonic() - began
    screen.end(stage, shown, f"    {stage.name}: {count.passed} passed, {count.failed} failed, {took_s:.1f} s")
    return count


def main() -> int:
    """Run the stages that the arguments choose; return 0 only if nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only-checks", action="store_true", help="leave the tests out")
    options = parser.parse_args()
    for folder in (LOGS, SCRATCH):
        folder.mkdir(parents=True, exist_ok=True)
    JUNIT.unlink(missing_ok=True)
    rust, python = [*RUST_CHECKS], [*PYTHON_CHECKS]
    if not options.only_checks:
        rust += RUST_TESTS
        python += PYTHON_TESTS
    screen, stopped = Screen(), threading.Event()

    def one_by_one(stages: Sequence[Stage]) -> list[tuple[str, Count]]:
        return [(stage.name, run(stage, screen)) for stage in stages if not stopped.is_set()]

    with ThreadPoolExecutor() as pool:
        tracks = [pool.submit(one_by_one, stages) for stages in (rust, python)]
        try:
            ended = [one for track in tracks for one in track.result()]
        except KeyboardInterrupt:
            stopped.set()  # what runs was interrupted as well
            raise
    total = sum((count for _, count in ended), Count(0, 0))
    failing = [name for name, count in ended if count.failed]
    print(f"failing: {', '.join(failing)}" if failing else "nothing failed")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
