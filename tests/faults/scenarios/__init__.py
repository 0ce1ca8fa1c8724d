"""The faults, by name. Each scenario injects one kind of fault and says whether it landed."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module

from tests.faults.ledger import Effects
from tests.faults.load import Load
from tests.faults.stage import Stage


@dataclass
class Ring:
    """Where scenarios act."""

    stage: Stage
    load: Load
    rng: random.Random


@dataclass
class Landed(Effects):
    """A fault that did what it was meant to do."""

    detail: str
    count: int = 1


class MissedError(Exception):
    """The fault did not land; the message says why."""


Scenario = Callable[[Ring], Awaitable[Landed]]
SCENARIOS: dict[str, Scenario] = {}
TIMEOUT_S = 240.0
"""For what a fault needs to land. Only one that does not land waits that long; on a machine that is busy with other
things a worker that was killed is back after half a minute."""
_FILES = (
    "chained",
    "clocks",
    "ended_runs",
    "finished_work",
    "hung_postgres",
    "hung_redis",
    "inputs",
    "messages",
    "network",
    "paid_answers",
    "postgres_faults",
    "power",
    "processes",
    "redis_faults",
    "replicas",
    "rust_programs",
    "stores",
    "survivors",
)


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    """Register a scenario under its name."""

    def register(function: Scenario) -> Scenario:
        SCENARIOS[name] = function
        return function

    return register


def load_all() -> dict[str, Scenario]:
    """Every scenario there is."""
    for name in _FILES:
        import_module(f"{__name__}.{name}")  # they register
    return SCENARIOS
