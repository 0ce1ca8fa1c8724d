"""What `decide` is asked about: everything that may happen to a task. Values only."""

from dataclasses import dataclass

from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Reason, StepEnded


@dataclass(frozen=True, slots=True)
class Accepted:
    """The task was admitted and is new here."""

    planning: Planning


@dataclass(frozen=True, slots=True)
class Refused:
    """The task is to be kept, but not to be worked on."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Met:
    """The task's own message was met again."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Somebody looked at the clock."""


@dataclass(frozen=True, slots=True)
class MomentCame:
    """Somebody looked at the clock for a task that was put off."""

    planning: Planning


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the task to end now."""

    tenant: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class RedriveRequested:
    """Somebody wants the run after `run`, since that one did not succeed."""

    tenant: str
    run: int
    planning: Planning


@dataclass(frozen=True, slots=True)
class MessageLost:
    """A step's message is nowhere any more."""

    step: str
    round: int
    attempt: int


Event = (
    Accepted
    | Refused
    | Met
    | StepEnded
    | DeadlinePassed
    | MomentCame
    | CancelRequested
    | RedriveRequested
    | MessageLost
)
