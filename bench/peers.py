"""`make bench-peers`: other Redis-backed task queues, by their own benchmarks and, where these are given, next to ours.

Usage: python -m bench.peers FOLDER [--only NAME,...] [--rounds 1] [--work DIR]. FOLDER holds `run_all.py`, which knows
the peers and how each is set up and run; it is no part of this repository. Setting them up fetches packages from PyPI
and npm, once, into `--work`. Rounds take turns, the peers' and ours, all with AOF everysec. The last line is one JSON
object.

What is compared: `drain_per_s`, tasks that wait and do nothing (ours also pass on what follows); `chain_per_s`, two
hops over two queues (ours: half our hand-offs per second, since all hops are alike); latency at 200 tasks a second.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import uvloop

from bench import handoff, latency

_RUN = "run_all.py"
_WORK = Path(__file__).parents[1] / "build" / "peers"
_OURS = "late, per batch, atomic with the hand-off"
_OURS_AFTER_KILL = "reclaimed when its lease ends (30 s by default), once"


class WrongFolderError(Exception):
    """Not a folder of peers' benchmarks; the message says what to do."""


@dataclass
class Peer:
    """One contestant and what was measured of it, a value for each round."""

    acknowledges: str
    """When a task counts as done."""
    after_kill: str
    """What becomes of a task whose worker is killed."""
    drain: list[float] = field(default_factory=list)
    chain: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def add(self, load: str, result: Mapping[str, float]) -> None:
        """One run as `run_all.py` writes it down: seconds for tasks, milliseconds for latencies."""
        if load == "latency":
            self.p50.append(result["p50"])
            self.p99.append(result["p99"])
        else:
            (self.drain if load == "drain" else self.chain).append(result["n"] / result["wall"])

    def figures(self) -> dict[str, Any]:
        """Medians; null where nothing came of it."""
        return {
            "acknowledges": self.acknowledges,
            "after_kill": self.after_kill,
            "drain_per_s": _median(self.drain, 0),
            "chain_per_s": _median(self.chain, 0),
            "latency_p50_ms": _median(self.p50, 2),
            "latency_p99_ms": _median(self.p99, 2),
        }


def _median(values: Sequence[float], digits: int) -> float | None:
    return round(statistics.median(values), digits or None) if values else None


def runner(folder: str) -> Path:
    """The peers' own program. Raises WrongFolderError."""
    if not folder:
        raise WrongFolderError("say where the peers' benchmarks are: make bench-peers PEERS=<folder with run_all.py>")
    program = Path(folder) / _RUN
    if not program.is_file():
        raise WrongFolderError(f"{folder} has no {_RUN}; PEERS has to be the folder with the peers' benchmarks")
    return program.resolve()


def known(program: Path) -> dict[str, Peer]:
    """The peers by name. Raises WrongFolderError where the program does not name them."""
    spec = importlib.util.spec_from_file_location("peers_run_all", program)
    module = ModuleType("peers_run_all") if spec is None else importlib.util.module_from_spec(spec)
    try:
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module(module)
    except Exception as error:  # anybody's program
        raise WrongFolderError(f"{program} cannot be loaded: {type(error).__name__}: {error}") from error
    table = getattr(module, "PEERS", None)
    if not isinstance(table, dict) or not all(isinstance(row, tuple) and len(row) == 8 for row in table.values()):
        raise WrongFolderError(f"{program} does not name its peers in a table PEERS of eight columns")
    return {name: Peer(row[6], row[7]) for name, row in table.items()}


def measured(work: Path, before: Iterable[Path]) -> list[dict[str, Any]]:
    """What the newest run wrote down, a line for each peer and load."""
    new = sorted(set(_results(work)) - set(before))
    return [orjson.loads(line) for file in new for line in file.read_bytes().splitlines()]


def _results(work: Path) -> list[Path]:
    return list(work.glob("results_aof_*.jsonl"))


def _run(program: Path, *arguments: str) -> None:
    """Its table goes to standard error: the last line of standard output is ours."""
    if subprocess.run([sys.executable, str(program), *arguments], stdout=sys.stderr, check=False).returncode:  # noqa: S603  what the caller named
        raise SystemExit(f"{program} {' '.join(arguments)} failed; see above")


def _ours(peer: Peer) -> dict[str, float]:
    """One round of ours, with the limits of the same round."""
    speed = uvloop.run(handoff.measure(handoff.parser().parse_args(["--rounds", "1", "--stock", "2000"])))
    waits = uvloop.run(latency.measure(latency.parser().parse_args(["--messages", "1200", "--idle", "1"])))
    peer.drain.append(speed["handoff_per_s"])
    peer.chain.append(speed["handoff_per_s"] / 2)
    peer.p50.append(waits["latency_p50_ms"])
    peer.p99.append(waits["latency_p99_ms"])
    return speed


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Set up, take turns, and compare. Raises WrongFolderError."""
    program = runner(options.folder)
    peers = known(program)
    work = Path(options.work).resolve()  # the peers run in their own folder
    work.mkdir(parents=True, exist_ok=True)
    _run(program, "--setup", "--work", str(work))
    ours = Peer(_OURS, _OURS_AFTER_KILL)
    raw = []
    for number in range(options.rounds):
        print(f"==> round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        before = _results(work)
        _run(program, "--aof", "--rounds", "1", "--only", options.only, "--work", str(work))
        for line in measured(work, before):
            if line["result"] is not None and line["peer"] in peers:
                peers[line["peer"]].add(line["load"], line["result"])
        raw.append(_ours(ours)["raw_limit_per_s"])
    figures = {name: one.figures() for name, one in peers.items() if one.drain or one.chain or one.p50}
    return {"octollm": {**ours.figures(), "raw_limit_per_s": round(statistics.median(raw))}, "peers": figures}


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 2 where there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the peers' run_all.py is")
    parser.add_argument("--only", default="", help="peers whose names hold one of these, with commas between them")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", default=str(_WORK), help="where the peers' packages and results go")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        print(orjson.dumps(measure(options)).decode())
    except WrongFolderError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
