"""Reads the orchestrator's messages: a submission becomes a task's first state, the end of a step an event. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octollm.contracts import (
    StepDone,
    StepSucceeded,
    StoredOutput,
    TaskCancel,
    TaskRedrive,
    TaskRejected,
    TaskSubmitted,
    plain,
    read,
)
from octollm.contracts.ids import later
from octollm.errors import ContractError
from octollm.orchestrator.event import Accepted, CancelRequested, Event, RedriveRequested, Refused
from octollm.orchestrator.messages import Incoming, Unreadable
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Done, StepEnded, TaskState
from octollm.plans.stored import as_stored


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task that admission let through or refused, as it will be stored if it is new."""

    first: TaskState
    event: Accepted | Refused

    @property
    def task(self) -> str:
        """Which one."""
        return self.first.task


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


@dataclass(frozen=True, slots=True)
class Cancel:
    """A request to cancel a task, known or not."""

    request: TaskCancel

    @property
    def task(self) -> str:
        """Which one."""
        return self.request.task

    @property
    def event(self) -> CancelRequested:
        """For the task, if it is the tenant's who asks."""
        return CancelRequested(self.request.tenant, self.request.detail)


@dataclass(frozen=True, slots=True)
class Redrive:
    """A request for one more run."""

    request: TaskRedrive
    event: RedriveRequested

    @property
    def task(self) -> str:
        """Of which task."""
        return self.request.task


Understood = Submitted | Ended | Cancel | Redrive


def understand(message: Incoming, planning: Planning) -> Understood | Unreadable:
    """What a message means here."""
    try:
        match message.type:
            case "task.submitted.v1":
                return _submitted(read(TaskSubmitted, message.body), message, planning)
            case "task.rejected.v1":
                return _submitted(read(TaskRejected, message.body), message, planning)
            case "step.done.v1":
                return Ended(read(StepDone, message.body).root)
            case "task.cancel.v1" | "task.redrive.v1":
                return _request(message, planning)
    except ContractError as error:
        return Unreadable(error.reason, str(error))
    return Unreadable("misrouted", f"messages of type {message.type or '(none)'} do not belong to the orchestrator")


def _request(message: Incoming, planning: Planning) -> Cancel | Redrive:
    if message.type == "task.cancel.v1":
        return Cancel(read(TaskCancel, message.body))
    wish = read(TaskRedrive, message.body)
    return Redrive(wish, RedriveRequested(wish.tenant, wish.run, planning))


def _submitted(body: TaskSubmitted | TaskRejected, message: Incoming, planning: Planning) -> Submitted:
    submission = as_stored(plain(body.submission))
    begins = max(body.received_at, body.submission.not_before or "")
    seconds = body.submission.deadline_s or planning.deadline_s(body.submission.kind)
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
        deadline_at=None if seconds is None else later(begins, seconds),
    )
    event = Refused(body.reason, body.detail) if isinstance(body, TaskRejected) else Accepted(planning)
    return Submitted(first, event)
