"""A long campaign: every fault with each of several fresh seeds.

The seeds take turns: as it is by default, with direct hand-off, in mode `stored`. The last line is one JSON object; the
exit code is 0 only if every seed's verdict is `valid`. Takes about six minutes a seed, two at a time.

Usage: python -m tests.faults.long [--seeds N] [--first SEED] [--at-once N]
"""

import argparse
import asyncio
import json
import secrets
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.faults.jobs import AT_ONCE, LOGS, Job, Result, run_all

_TURNS: tuple[tuple[str, ...], ...] = ((), ("--direct",), ("--durability", "stored"))
_LOAD = ("--tasks", "1000", "--minutes", "5")
_HIGHEST_SEED = 1_000_000
_VIOLATIONS = (
    *("second_terminals", "unauthorised", "mixed_results", "wrong_ends", "undrained", "work_after_end"),
    *("costly_crash", "unnamed"),
)


def jobs(seeds: Sequence[int]) -> list[Job]:
    """Return one campaign with all scenarios for each seed."""
    return [
        Job(f"long-{seed}", ("--seed", str(seed), *_LOAD, *_TURNS[at % len(_TURNS)])) for at, seed in enumerate(seeds)
    ]


def summary(results: Sequence[Result], took_s: float) -> dict[str, Any]:
    """Return the last line: sums over all seeds, and in `violations` what else the ledger found."""
    found = [result.found for result in results]
    recovered = [value for result in results for value in result.recovered_s]

    def total(name: str) -> int:
        return sum(one.get(name, 0) for one in found)

    landed = {name for one in found for name, count in one.get("scenarios", {}).items() if count}
    return {
        "verdict": "valid" if all(result.passed for result in results) else "invalid",
        "seeds": {
            one.get("seed", result.job.name): one.get("verdict") for one, result in zip(found, results, strict=True)
        },
        "faults": total("faults_injected"),
        "kinds": len(landed),
        "accepted": total("accepted"),
        "lost": total("lost"),
        "duplicated": total("duplicate_effects"),
        "unprotected": total("unprotected"),
        "recovery_p50_s": round(statistics.median(recovered), 2) if recovered else None,
        "recovery_max_s": max(recovered, default=None),
        "violations": {name: total(name) for name in _VIOLATIONS},
        "missed": {result.job.name: result.found.get("missed") for result in results if result.found.get("missed")},
        "took_s": round(took_s, 1),
    }


def main(arguments: list[str]) -> int:
    """Return 0 only if every seed is valid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6, help="how many")
    parser.add_argument("--first", type=int, help="the first seed, the others follow it; by default a random one")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="how many campaigns run at a time")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.at_once < 1:
        parser.error("--seeds and --at-once must be at least 1")
    first = secrets.randbelow(_HIGHEST_SEED) if options.first is None else options.first
    wanted = jobs(range(first, first + options.seeds))
    print(f"{len(wanted)} campaigns, {options.at_once} at a time; their logs are in {LOGS}", flush=True)
    began = time.monotonic()
    results = asyncio.run(run_all(wanted, options.at_once))
    print(json.dumps(summary(results, time.monotonic() - began)))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
