"""The three logs that are kept outside the system: what producers asked, what arms did, which faults were injected.

Each is a file of JSON lines that only grows. The producers' is on disk before anything is sent.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Loss = Literal["none", "redis"]
"""What a fault may take by itself: nothing, or what only Redis knew."""


def now() -> float:
    """Seconds of the machine's own clock, the same in every process and never set back."""
    return time.monotonic()


class Log:
    """A file of JSON lines."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        """`sync`: each line is on disk before `write` returns."""
        self.path = path
        self._sync = sync
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **fields: Any) -> None:
        """Add a line, stamped with `at`."""
        os.write(self._file, json.dumps({"at": now(), **fields}).encode() + b"\n")
        if self._sync:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Nothing more is written."""
        os.close(self._file)


def lines(path: Path) -> list[dict[str, Any]]:
    """Everything in a log. A last line that a killed process cut off says nothing."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


_RUNS = "started a step"
"""What the executor says, in its own log, before it runs one."""
_STOPPED = "released a step that did not end within the drain"


def runs(log: Path) -> list[dict[str, Any]]:
    """What an executor has run, as effects: its sandbox lets no step leave a line of its own."""
    found = []
    for line in lines(log):
        if line.get("message") in (_RUNS, _STOPPED):
            names = ("task", "run", "step", "round", "attempt", "tenant")
            stopped = {"stopped": True} if line["message"] == _STOPPED else {}
            found.append({**{name: line[name] for name in names}, "worker": log.stem, **stopped})
    return found


@dataclass
class Asked:
    """One submission as its producer saw it, over all its tries."""

    key: str
    tenant: str
    source: str
    expected: str
    """`succeeded`, `dead` (a poison message) or `dead_letter` (no submission at all)."""
    answer: Any
    """What the task has to answer; None: nothing is said of it."""
    invoked_at: float
    outcome: Literal["ok", "fail", "unknown"] = "unknown"
    accepted_at: float | None = None
    task: str | None = None
    """As the 202 named it; the stream source names none."""
    entry: str | None = None
    """The stream source: the entry's id."""
    mode: str = "redis"
    """The durability that the 202 named; on a stream what Redis gives."""
    tries: int = 0


def asked(path: Path) -> dict[str, Asked]:
    """The producers' log by key. An invocation without an answer is unknown, not failed."""
    found: dict[str, Asked] = {}
    for line in lines(path):
        if line["what"] in {"keyless", "answered"}:
            continue
        if line["what"] == "invoke":
            one = found.get(line["key"])
            if one is None:
                names = ("key", "tenant", "source", "expected", "answer")
                one = found[line["key"]] = Asked(**{name: line[name] for name in names}, invoked_at=line["at"])
            one.tries += 1
        else:
            one = found[line["key"]]
            if one.outcome != "ok":
                one.outcome = line["what"]
            if line["what"] == "ok" and one.accepted_at is None:
                one.accepted_at, one.task, one.entry = line["at"], line.get("task"), line.get("entry")
                one.mode = line.get("mode", one.mode)
    return found


@dataclass
class Keyless:
    """the answers to producers without an idempotency key, which submit once."""

    named: set[str] = field(default_factory=set)
    """Tasks that an answer named, as accepted or as unconfirmed."""
    unanswered: int = 0
    """Submissions that were not answered at all: their tasks may exist unnamed."""


def keyless(path: Path) -> Keyless:
    """Return what the producers' log says of submissions without a key."""
    found, sent, answered = Keyless(), set(), set()
    for line in lines(path):
        if line["what"] == "keyless":
            sent.add(line["key"])
        elif line["what"] == "answered":
            answered.add(line["key"])
            if line["task"] is not None:
                found.named.add(line["task"])
    found.unanswered = len(sent - answered)
    return found


@dataclass(kw_only=True)
class Effects:
    """What a fault may or must have led to, for the rules of the ledger."""

    loss: Loss = "none"
    spares: tuple[str, ...] = ()
    """Durability modes whose tasks must outlast it all the same; `stored` always must."""
    excuses: tuple[str, ...] = ()
    """What may be seen because of it, for instance `failed: step_dead`."""
    made: tuple[str, ...] = ()
    """Tasks that come from the fault itself and from no producer."""
    broken: tuple[str, ...] = ()
    """Promises that the scenario itself has seen broken, a sentence each."""
    throughput: tuple[float, float] | None = None
    """Steps per second of those who survived a crash, before and after it."""


@dataclass
class Fault(Effects):
    """One injected fault."""

    scenario: str
    began: float
    ended: float
    landed: bool
    """Whether it did what it was meant to do; a fault that missed proves nothing."""
    recovery_s: float | None = None
    detail: str = ""
    count: int = 1


@dataclass
class System:
    """What the system itself says after the drain."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    finished: dict[tuple[str, int], int] = field(default_factory=dict)
    """How many `finished` events each run has."""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)
    """What is still in Redis: by key, how many entries, pending ones, schedule and in-flight fields."""
    ended_at: dict[tuple[str, int], float] = field(default_factory=dict)
    """When each run ended, on the clock of `now`."""
    unindexed: list[str] = field(default_factory=list)
    """Tasks that have ended and whose result memory has not taken."""
    statuses: dict[str, str] = field(default_factory=dict)
    """What a producer that asks gets as the answer, by task: the state that Redis has."""
