"""The events by their schemas: models (generated from `schemas/events`), `read` and `write`."""

from octollm.contracts.codec import plain, read, write
from octollm.contracts.generated.dead_drop_v1_schema import DeadDrop
from octollm.contracts.generated.dead_letter_v1_schema import DeadLetter
from octollm.contracts.generated.step_done_v1_schema import (
    Chained,
    InlineOutput,
    StepCancelled,
    StepDead,
    StepDone,
    StepError,
    StepFailed,
    StepRetrying,
    StepSucceeded,
    StoredOutput,
)
from octollm.contracts.generated.step_requested_v1_schema import ContinuationStep, StepContinuation, StepRequested
from octollm.contracts.generated.task_cancel_v1_schema import TaskCancel
from octollm.contracts.generated.task_event_v1_schema import TaskEvent
from octollm.contracts.generated.task_redrive_v1_schema import TaskRedrive
from octollm.contracts.generated.task_rejected_v1_schema import TaskRejected
from octollm.contracts.generated.task_result_v1_schema import StepSummary, TaskResult
from octollm.contracts.generated.task_status_v1_schema import OpenStep, TaskStatus, WaitingStep
from octollm.contracts.generated.task_submission_v1_schema import Callback, TaskSubmission
from octollm.contracts.generated.task_submitted_v1_schema import TaskSubmitted

__all__ = [
    "Callback",
    "Chained",
    "ContinuationStep",
    "DeadDrop",
    "DeadLetter",
    "InlineOutput",
    "OpenStep",
    "StepCancelled",
    "StepContinuation",
    "StepDead",
    "StepDone",
    "StepError",
    "StepFailed",
    "StepRequested",
    "StepRetrying",
    "StepSucceeded",
    "StepSummary",
    "StoredOutput",
    "TaskCancel",
    "TaskEvent",
    "TaskRedrive",
    "TaskRejected",
    "TaskResult",
    "TaskStatus",
    "TaskSubmission",
    "TaskSubmitted",
    "WaitingStep",
    "plain",
    "read",
    "write",
]
