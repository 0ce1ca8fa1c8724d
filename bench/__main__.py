"""`make bench`: every figure of delivery, one after the other, each as a ratio within its own run.

Usage: python -m bench [--quick]. Some twelve minutes; `--quick` is for looking whether all of it runs. Loopback only,
servers of its own. The last line is one JSON object.
"""

import argparse
import sys
from typing import Any

import orjson
import uvloop

from bench import backlog, handoff, latency, limits, pipeline

_QUICK = {
    "handoff": ["--messages", "5000", "--stock", "1000", "--rounds", "1"],
    "latency": ["--messages", "400", "--idle", "2"],
    "pipeline": ["--tasks", "200"],
    "backlog": ["--long", "50000", "--short", "5000", "--rounds", "1"],
    "limits": ["--messages", "3000", "--rounds", "1"],
}
_ALL = {"handoff": handoff, "latency": latency, "pipeline": pipeline, "backlog": backlog, "limits": limits}


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small numbers that mean nothing")
    quick = parser.parse_args(arguments).quick
    found: dict[str, Any] = {}
    for name, one in _ALL.items():
        print(f"==> {name}", file=sys.stderr, flush=True)
        found |= uvloop.run(one.measure(one.parser().parse_args(_QUICK[name] if quick else [])))
    print(orjson.dumps(found).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
