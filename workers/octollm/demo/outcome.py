"""What a task of the demo is, and what became of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Source = Literal["http", "stream", "webhook"]


@dataclass(frozen=True)
class Outcome:
    """What became of a task, wherever it was found."""

    state: str
    reason: str | None
    detail: str | None
    steps: int
    answer: Any
    where: str
    """Where the result is stored."""
    stored: str
    """Everything Postgres keeps about it, as text."""


@dataclass(frozen=True)
class DemoTask:
    """One task. `fault` gives a sentence when the outcome is not as it has to be."""

    name: str
    kind: str
    source: Source
    body: bytes
    expected: str
    fault: Callable[[Outcome], str | None]
    tampered: bool = False
    """A webhook whose signature is somebody else's."""
    cancelled: bool = False
    """The producer cancels it as soon as it runs."""


def make_task(
    name: str,
    kind: str,
    goal: str,
    given: Mapping[str, Any],
    expected: str,
    fault: Callable[[Outcome], str | None],
    source: Source = "http",
) -> DemoTask:
    return DemoTask(name, kind, source, orjson.dumps({"goal": goal, "kind": kind, "input": given}), expected, fault)


def any_answer(_found: Outcome) -> str | None:
    """Its state says all there is to say."""
    return None
