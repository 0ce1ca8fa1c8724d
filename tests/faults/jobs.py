"""Runs campaigns, each in a process of its own and some at a time, and reads their last lines."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.stage import ROOT

AT_ONCE = 2
"""Campaigns mostly wait: for leases, for restarts."""
LOGS = ROOT / "build" / "logs" / "faults"
_LONGEST_S = 3600
_GRACE_S = 30
_TAIL_LINES = 60


@dataclass(frozen=True)
class Job:
    """One campaign."""

    name: str
    arguments: tuple[str, ...]

    @property
    def mutant(self) -> bool:
        """Whether a bug is planted, which has to be caught."""
        return "--mutant" in self.arguments


@dataclass(frozen=True)
class Result:
    """What it said in its last line, and whether that is what is wanted."""

    job: Job
    found: dict[str, Any]
    passed: bool
    took_s: float

    @property
    def recovered_s(self) -> list[float]:
        """Seconds after each fault until a task that was sent then had ended, without those that took too long."""
        return [value for value in self.found.get("recovered_s", {}).values() if value is not None]


async def run(job: Job) -> Result:
    """One campaign in a process of its own; what it prints goes into a log."""
    began = time.monotonic()
    path = LOGS / f"{job.name}.log"
    with path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-m", "tests.faults.campaign", *job.arguments, "--keep", str(LOGS / job.name)),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            await asyncio.wait_for(process.wait(), _LONGEST_S)
        except TimeoutError:
            await _end(process)
        except asyncio.CancelledError:
            await _end(process)
            raise
    found = _last(path.read_bytes())
    passed = found.get("verdict") == "invalid" and found["caught"] if job.mutant else found.get("verdict") == "valid"
    result = Result(job, found, bool(passed), round(time.monotonic() - began, 1))
    meant = ("caught" if passed else "NOT CAUGHT") if job.mutant else found.get("verdict", "no verdict")
    print(f"  {job.name}: {meant}, {result.took_s} s", flush=True)
    if not passed:
        said = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        print(f"    its output is in {path}; it ends with", *said, sep="\n    ", flush=True)
    return result


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let it end what it started; then it has to go."""
    process.send_signal(signal.SIGINT)
    try:
        await asyncio.wait_for(process.wait(), _GRACE_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _last(said: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(said.splitlines()[-1]))
    except (IndexError, ValueError):
        return {}


async def run_all(wanted: Sequence[Job], at_once: int = AT_ONCE) -> list[Result]:
    """Run all of them, some at a time; the results are in the order of the jobs."""
    LOGS.mkdir(parents=True, exist_ok=True)
    limit = asyncio.Semaphore(at_once)

    async def one(job: Job) -> Result:
        async with limit:
            return await run(job)

    return await asyncio.gather(*(one(job) for job in wanted))
