"""What comes in from the bus and what is to go out, without a word about Redis. The runtime translates both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from octollm.contracts import StepRequested, TaskResult
from octollm.orchestrator.task_events import Told


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message as it was read; nothing in it has been checked."""

    type: str
    id: str
    tenant: str
    traceparent: str
    body: bytes
    entry: str
    """Where it lies: stream and entry id. Tells two letters with the same content apart."""
    original: bytes = b""
    """Dead letters only: what could not be worked on."""


class StatusUpdate(NamedTuple):
    """A task's new status, for whoever asks the reflex. Written only over a lower version."""

    task: str
    version: int
    ended: bool
    fields: Mapping[str, str | bytes]


class Send(NamedTuple):
    """A step for its arm."""

    step: StepRequested
    traceparent: str
    again: bool = False
    """It was perhaps sent before: the bus looks whether its message is there."""


class Outgoing(NamedTuple):
    """What follows from one message, after it has been committed."""

    sends: tuple[Send, ...] = ()
    events: tuple[Told, ...] = ()
    traceparent: str = ""
    status: StatusUpdate | None = None
    result: TaskResult | None = None
    """Of a task that has just ended: memory takes it from here."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The message can never be worked on: a dead letter."""

    reason: Literal["unreadable", "schema", "misrouted"]
    message: str


Answer = Outgoing | Unreadable
