"""The campaigns of `make faults-ci`: three seeds that share all scenarios among them, and every planted bug.

Each seed takes every third scenario of the list, so that the three together inject each fault once; one of them with
direct hand-off. Campaigns mostly wait (for leases, for restarts), so two run at a time. The last line is one JSON
object; exit code 0 only when every seed's verdict is `valid` and every planted bug was caught, which means by an
offence of the kinds it is known to show.

Usage: python -m tests.faults.ci
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.faults.jobs import AT_ONCE, LOGS, Job, Result, run_all
from tests.faults.mutants import MUTANTS
from tests.faults.scenarios import load_all

SEEDS = (7, 19, 31)
DIRECT = 19
"""The seed whose steps go from arm to arm where they can."""
_LOSES_DATA = "flushall"
"""The seed with this runs in mode `stored`, in which Redis may lose everything."""


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


def summary(results: Sequence[Result], took_s: float) -> dict[str, Any]:
    """The last line."""
    seeds = [result.found for result in results if not result.job.mutant]
    recovered = [value for result in results if not result.job.mutant for value in result.recovered_s]
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
    began = time.monotonic()
    wanted = jobs()
    print(f"{len(wanted)} campaigns, {AT_ONCE} at a time; their logs are in {LOGS}", flush=True)
    results = asyncio.run(run_all(wanted))
    print(json.dumps(summary(results, time.monotonic() - began)))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
