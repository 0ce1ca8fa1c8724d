"""Events: everything that may happen to a task, as values that `decide` takes."""

from dataclasses import dataclass

from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Reason, StepEnded


@dataclass(frozen=True, slots=True)
class Accepted:
    """The task passed admission and is not stored yet."""

    planning: Planning


@dataclass(frozen=True, slots=True)
class Rejected:
    """The task is to be stored, but not run."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Redelivered:
    """The message that brought the task was delivered again."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The task's deadline may have passed. Any other event ends an overdue task as well."""


@dataclass(frozen=True, slots=True)
class NotBeforeReached:
    """The time at which a run starts may have come."""

    planning: Planning


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A tenant asks to cancel the task."""

    tenant: str
    detail: str | None = None
    requested_at: str | None = None
    """Stored with a request that arrives before its task."""


@dataclass(frozen=True, slots=True)
class RedriveRequested:
    """A tenant asks for another run, because run number `run` did not succeed."""

    tenant: str
    run: int
    planning: Planning


@dataclass(frozen=True, slots=True)
class Unprocessable:
    """The orchestrator failed twice on what happened to the task."""

    detail: str


@dataclass(frozen=True, slots=True)
class MessageLost:
    """The message of a step in flight no longer exists in Redis."""

    step: str
    round: int
    attempt: int


Event = (
    Accepted
    | Rejected
    | Redelivered
    | StepEnded
    | DeadlinePassed
    | NotBeforeReached
    | CancelRequested
    | RedriveRequested
    | MessageLost
    | Unprocessable
)
