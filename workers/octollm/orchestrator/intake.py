"""Reads the orchestrator's messages: a submission becomes a task's first state, the end of a step an event. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from octollm.contracts import StepDone, StepSucceeded, StoredOutput, TaskRejected, TaskSubmitted, plain, read
from octollm.contracts.ids import as_text
from octollm.errors import ContractError
from octollm.orchestrator.decide import Accepted, Done, Event, Refused, StepEnded
from octollm.orchestrator.messages import Incoming, Unreadable
from octollm.orchestrator.recipes import RecipeBook
from octollm.orchestrator.state import TaskState


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task that admission let through or refused, as it will be stored if it is new."""

    first: TaskState
    event: Accepted | Refused


@dataclass(frozen=True, slots=True)
class Ended:
    """A step's end."""

    done: Done

    @property
    def task(self) -> str:
        """Whose step it was."""
        return self.done.task

    @property
    def stored(self) -> tuple[str, str] | None:
        """Tenant and SHA-256 of an output that has to be fetched."""
        if isinstance(self.done, StepSucceeded) and isinstance(self.done.output, StoredOutput):
            return self.done.tenant, self.done.output.sha256
        return None

    def event(self, outputs: Mapping[tuple[str, str], Mapping[str, Any]]) -> Event:
        """With its output; KeyError when that was never stored, which is a fault of the arm."""
        if not isinstance(self.done, StepSucceeded):
            return StepEnded(self.done)
        if self.stored is not None:
            return StepEnded(self.done, outputs[self.stored], self.stored[1])
        return StepEnded(self.done, self.done.output.value)  # type: ignore[union-attr]  # `stored` is None: it is inline


def understand(message: Incoming, book: RecipeBook) -> Submitted | Ended | Unreadable:
    """What a message means here."""
    try:
        match message.type:
            case "task.submitted.v1":
                return _submitted(read(TaskSubmitted, message.body), message, book)
            case "task.rejected.v1":
                return _submitted(read(TaskRejected, message.body), message, book)
            case "step.done.v1":
                return Ended(read(StepDone, message.body).root)
    except ContractError as error:
        return Unreadable(error.reason, str(error))
    return Unreadable("misrouted", f"messages of type {message.type} do not belong to the orchestrator")


def _submitted(body: TaskSubmitted | TaskRejected, message: Incoming, book: RecipeBook) -> Submitted:
    submission = plain(body.submission)
    seconds = body.submission.deadline_s
    recipe = None if body.submission.kind is None else book.get(body.submission.kind)
    if seconds is None and recipe is not None:
        seconds = recipe.deadline_s
    first = TaskState(
        task=body.task,
        tenant=body.tenant,
        submission=submission,
        source=body.source,
        idempotency_key=body.idempotency_key,
        fingerprint=body.fingerprint,
        redactions=plain(body.redactions),
        priority=body.submission.priority or "normal",
        received_at=body.received_at,
        traceparent=message.traceparent,
        deadline_at=None if seconds is None else _later(body.received_at, seconds),
    )
    event = Refused(body.reason, body.detail) if isinstance(body, TaskRejected) else Accepted(book)
    return Submitted(first, event)


def _later(moment: str, seconds: int) -> str:
    return as_text(datetime.fromisoformat(moment).astimezone(UTC) + timedelta(seconds=seconds))
