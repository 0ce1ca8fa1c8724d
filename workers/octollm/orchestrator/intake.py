"""Parses the orchestrator's messages: one stream entry becomes one event. Pure."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

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
from octollm.orchestrator.event import Accepted, CancelRequested, Event, RedriveRequested, Rejected
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Done, StepEnded, TaskState
from octollm.plans.stored import as_stored
from octollm.protocol.fields import clean
from octollm.protocol.handoff import Entry


class TaskMessage(NamedTuple):
    """What one entry says."""

    task: str
    event: Event
    first_state: TaskState | None = None
    """Submissions: the task's state if it is not stored yet."""

    @property
    def stored_output(self) -> tuple[str, str] | None:
        """Tenant and SHA-256 of a step's output that is in Postgres; `event` has it once it is loaded."""
        event = self.event
        if isinstance(event, StepEnded) and event.output_sha256 is not None:
            return event.done.tenant, event.output_sha256
        return None


@dataclass(frozen=True, slots=True)
class InvalidMessage:
    """An entry that can never be processed; it becomes a dead letter."""

    reason: Literal["malformed", "schema", "misrouted"]
    message: str


def parse_message(entry: Entry, planning: Planning) -> TaskMessage | InvalidMessage:
    """Parse one entry of `tasks` or `steps.done`. `planning`: what the task's plan will be made from."""
    type_, body = clean(entry.fields.get(b"type")), entry.fields.get(b"body", b"")
    try:
        message = _parse(type_, body, clean(entry.fields.get(b"traceparent")), planning)
    except ContractError as error:
        return InvalidMessage(error.reason, str(error))
    if message is None:
        return InvalidMessage("misrouted", f"the orchestrator does not process messages of type {type_ or '(none)'}")
    return message


def _parse(type_: str, body: bytes, traceparent: str, planning: Planning) -> TaskMessage | None:
    match type_:
        case "task.submitted.v1":
            return _submission(read(TaskSubmitted, body), traceparent, planning)
        case "task.rejected.v1":
            return _submission(read(TaskRejected, body), traceparent, planning)
        case "step.done.v1":
            done = read(StepDone, body).root
            return TaskMessage(done.task, step_ended(done))
        case "task.cancel.v1":
            cancel = read(TaskCancel, body)
            return TaskMessage(cancel.task, CancelRequested(cancel.tenant, cancel.detail, cancel.requested_at))
        case "task.redrive.v1":
            redrive = read(TaskRedrive, body)
            return TaskMessage(redrive.task, RedriveRequested(redrive.tenant, redrive.run, planning))
    return None


def step_ended(done: Done) -> StepEnded:
    """Return the event of a step's end; an output that is in Postgres has only its digest."""
    if not isinstance(done, StepSucceeded):
        return StepEnded(done)
    if isinstance(done.output, StoredOutput):
        return StepEnded(done, None, done.output.sha256)
    return StepEnded(done, done.output.value)


def _submission(body: TaskSubmitted | TaskRejected, traceparent: str, planning: Planning) -> TaskMessage:
    starts_at = max(body.received_at, body.submission.not_before or "")
    seconds = body.submission.deadline_s or planning.deadline_s(body.submission.kind)
    first_state = TaskState(
        task=body.task,
        tenant=body.tenant,
        submission=as_stored(plain(body.submission)),
        source=body.source,
        idempotency_key=body.idempotency_key,
        fingerprint=body.fingerprint,
        redactions=plain(body.redactions),
        priority=body.submission.priority or "normal",
        received_at=body.received_at,
        traceparent=traceparent,
        deadline_at=None if seconds is None else later(starts_at, seconds),
        starts_at=body.submission.not_before,
    )
    event = Rejected(body.reason, body.detail) if isinstance(body, TaskRejected) else Accepted(planning)
    return TaskMessage(body.task, event, first_state)
