"""The campaigns of `make faults-ci`: three seeds that share all scenarios among them, and every planted bug.

Each seed takes every third scenario of the list, so that the three together inject each fault once; one of them with
direct hand-off. Campaigns mostly wait (for leases, for restarts), so two run at a time. The last line is one JSON
object; exit code 0 only when every seed's verdict is `valid` and every planted bug was caught, which means by an
offence of the kinds it is known to show.

Usage: python -m tests.faults.ci
"""

import asyncio
import json
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.mutants import MUTANTS
from tests.faults.scenarios import load_all
from tests.faults.stage import ROOT

SEEDS = (7, 19, 31)
DIRECT = 19
"""The seed whose steps go from arm to arm where they can."""
_AT_ONCE = 2
_LOSES_DATA = "flushall"
"""The seed with this runs in mode `stored`, in which Redis may lose everything."""
_LONGEST_S = 1200
_GRACE_S = 30
_TAIL_LINES = 60
LOGS = ROOT / "build" / "logs" / "faults"


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


def jobs() -> list[Job]:
    """Longest first, so that nothing long is left alone at the end."""
    known = list(load_all())
    shared = [known[at :: len(SEEDS)] for at in range(len(SEEDS))]
    seeds = [
        Job(
            f"seed-{seed}",
            (
                *(*_seed(seed), "--tasks", "240", "--minutes", "1"),
                *("--durability", "stored" if _LOSES_DATA in part else "auto", "--scenario", ",".join(part)),
            ),
        )
        for seed, part in zip(SEEDS, shared, strict=True)
    ]
    planted = [
        Job(name, ("--mutant", name, "--seed", str(SEEDS[0]), "--tasks", "60", "--minutes", "0.2")) for name in MUTANTS
    ]
    return [*seeds, *planted]


def _seed(seed: int) -> tuple[str, ...]:
    return ("--seed", str(seed), *(["--direct"] if seed == DIRECT else []))


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


async def everything(wanted: Sequence[Job]) -> list[Result]:
    """All of them, some at a time, in the order they were given."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(job: Job) -> Result:
        async with limit:
            return await run(job)

    return await asyncio.gather(*(one(job) for job in wanted))


def summary(results: Sequence[Result], took_s: float) -> dict[str, Any]:
    """The last line."""
    seeds = [result.found for result in results if not result.job.mutant]
    recovered = [value for found in seeds for value in found.get("recovered_s", {}).values() if value is not None]
    passed = all(result.passed for result in results)
    kinds = (
        *("accepted", "terminal", "lost", "unprotected", "duplicate_effects", "second_terminals"),
        *("unauthorised", "mixed_results", "wrong_ends", "undrained", "costly_crash"),
    )
    return {
        "verdict": "valid" if passed else "invalid",
        "seeds": {result.job.name: result.found.get("verdict") for result in results if not result.job.mutant},
        "mutants": {result.job.name: result.passed for result in results if result.job.mutant},
        **{kind: sum(found.get(kind, 0) for found in seeds) for kind in (*kinds, "faults_injected")},
        "scenarios": {name: count for found in seeds for name, count in found.get("scenarios", {}).items()},
        "recovery_p50_s": round(statistics.median(recovered), 2) if recovered else None,
        "recovery_max_s": max(recovered, default=None),
        "took_s": round(took_s, 1),
    }


def main() -> int:
    """0 only when all is as it has to be."""
    LOGS.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    wanted = jobs()
    print(f"{len(wanted)} campaigns, {_AT_ONCE} at a time; their logs are in {LOGS}", flush=True)
    results = asyncio.run(everything(wanted))
    print(json.dumps(summary(results, time.monotonic() - began)))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
