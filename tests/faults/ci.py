"""What `make faults-ci` runs: every scenario with three seeds, then every planted bug. Ends with `N passed, M failed`.

Two campaigns at a time would disturb each other on two cores; they run one after the other.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from mutants import MUTANTS

CAMPAIGN = Path(__file__).with_name("campaign.py")
SEEDS = (1, 2, 3)


def run(wanted: str, *arguments: str) -> bool:
    """Whether the campaign's verdict is the wanted one; what it says otherwise is shown."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, CAMPAIGN, *arguments], capture_output=True, text=True, timeout=1800, check=False
    )
    last = (done.stdout.splitlines() or [""])[-1]
    try:
        found = json.loads(last)
    except ValueError:
        found = {"verdict": "none"}
    good = found["verdict"] == wanted
    print(f"{'ok  ' if good else 'FAIL'} {' '.join(arguments)}: {found['verdict']}, {time.monotonic() - began:.0f} s")
    print(f"     {last}" if good else f"{done.stdout}\n{done.stderr}", flush=True)
    return good


def main() -> int:
    """0 only when every campaign had the verdict it must have."""
    results = [run("valid", "--seed", str(seed), "--tasks", "600", "--minutes", "2") for seed in SEEDS]
    results += [run("invalid", "--mutant", name, "--tasks", "60", "--minutes", "0.2") for name in MUTANTS]
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
