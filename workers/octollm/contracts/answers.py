"""What the HTTP doors answer, beside the events: one model per document, shared by those who write and read them.

Times are UTC, RFC 3339 with milliseconds. Optional fields are left out when there is nothing to say. Readers overlook
fields they do not know, so that a newer server can say more.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from octollm.contracts.generated.task_event_v1_schema import TaskEvent

Item = TypeVar("Item")
TaskStateName = Literal["accepted", "running", "succeeded", "failed", "rejected", "cancelled", "expired"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "rejected", "cancelled", "expired"})
CostGroup = Literal["task", "arm", "model", "day"]


class Answer(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)


class Problem(Answer):
    """Why there is no answer (RFC 9457)."""

    type: Annotated[str, Field(description="urn:octollm:problem:<code>; the code is stable.")]
    title: Annotated[str, Field(description="The status in words.")]
    status: int
    detail: Annotated[str, Field(description="One sentence that says what to do.")]
    field: Annotated[str | None, Field(description="The parameter, header or field to correct.")] = None


class Accepted(Answer):
    """A task that was taken in."""

    task: str
    tenant: str
    state: TaskStateName
    durability: Annotated[
        str, Field(description="What the 202 stands on: redis, fsync, replicated(n), fsync+replicated(n) or stored.")
    ]
    duplicate: Annotated[bool, Field(description="The same submission came before; this is its task.")]
    status_url: str


class Cancellation(Answer):
    """A task that was asked to end. Ended ones stay as they are."""

    task: str
    state: TaskStateName


class Redrive(Answer):
    """Whether another run was requested. A task that needs none is unchanged."""

    task: str
    state: TaskStateName
    run: Annotated[int, Field(description="The run that the next one follows, or the newest.")]
    accepted: Annotated[bool, Field(description="False: no run was requested.")]
    detail: Annotated[str | None, Field(description="Why no run was requested.")] = None


class Drop(Answer):
    """Whether the archive was told to drop a dead letter."""

    id: int
    accepted: Annotated[bool, Field(description="False: it was dropped before.")]


class Page(Answer, Generic[Item]):
    """Some items, and the way to those that follow."""

    items: list[Item]
    next: Annotated[
        str | None, Field(description="Give it as `cursor` (events: `after`) to go on; null: there is no more.")
    ]


class TaskItem(Answer):
    """One task in a list."""

    task: str
    tenant: str
    kind: str | None = None
    state: TaskStateName
    reason: Annotated[str | None, Field(description="Why it did not succeed.")] = None
    detail: str | None = None
    source: Annotated[str, Field(description="The door it came through.")]
    priority: Literal["high", "normal", "low"]
    goal: Annotated[str | None, Field(description="Redacted. Absent where the message could not be read.")] = None
    run: int
    created_at: str
    updated_at: str
    deadline_at: str | None = None


class RunItem(Answer):
    """One execution of a task."""

    run: int
    state: TaskStateName
    reason: str | None = None
    detail: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    plan: Annotated[
        dict[str, Any] | None, Field(description="As it was when the run began; absent: it never got one.")
    ] = None


class StepItem(Answer):
    """One step in one repair round."""

    run: int
    step: str
    round: int
    arm: str
    state: Literal["sent", "succeeded", "failed", "dead", "cancelled"]
    attempt: Annotated[int, Field(description="Highest attempt known.")]
    failures: int
    sent_by: Annotated[str, Field(description="`intake`, `redrive`, or the message whose arrival sent it.")]
    sent_at: str
    worker: str | None = None
    duration_ms: int | None = None
    error: str | None = None
    output: Annotated[
        dict[str, Any] | None, Field(description="Absent while there is none, and where it is too large to show.")
    ] = None
    output_sha256: Annotated[str | None, Field(description="Of an output that is too large to show.")] = None


class AttemptItem(Answer):
    """How one attempt at a step ended."""

    run: int
    step: str
    round: int
    attempt: int
    delivery: Annotated[int, Field(description="How often its message had been delivered.")]
    outcome: Annotated[
        str,
        Field(description="As the arm told it; `dropped`: made from an output that was not the one committed."),
    ]
    worker: str
    duration_ms: int
    finished_at: str
    error_code: str | None = None
    error_message: str | None = None
    error_class: Annotated[
        str | None, Field(description="transient, permanent or needs_person; null: it did not fail, or nobody knows.")
    ] = None


class Cost(Answer):
    """What calls to models took."""

    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: Annotated[
        str | None, Field(description="Exact decimal of the calls whose price is known; null: of none.")
    ]
    unpriced_calls: Annotated[int, Field(description="Calls whose price is not known; they are not in cost_usd.")]


class CostItem(Cost):
    """The cost of one group."""

    key: Annotated[str, Field(description="Task id, arm, model, or day (UTC).")]


class DeadLetterItem(Answer):
    """A message that was given up on."""

    id: int
    tenant: str
    task: str | None = None
    run: Annotated[int | None, Field(description="The task's run that it belongs to.")] = None
    reason: str
    message: Annotated[str, Field(description="What was wrong.")]
    stage: Annotated[str, Field(description="before_admission or after_admission.")]
    stream: str
    type: Annotated[str, Field(description="Its field `type`, cleaned.")]
    bytes: Annotated[int, Field(description="Length of the body as it came.")]
    received_at: str
    redriven_at: Annotated[str | None, Field(description="Its task has begun another run.")] = None
    dropped_at: Annotated[str | None, Field(description="Somebody wants nothing done about it.")] = None


class DeadLetter(DeadLetterItem):
    """One dead letter with what is kept of it."""

    letter: Annotated[dict[str, Any], Field(description="The event dead.letter.v1 as it was stored.")]
    stored_bytes: Annotated[int, Field(description="Length of what is kept: redacted text, or the admitted body.")]
    text: Annotated[str | None, Field(description="What is kept; absent where it is no UTF-8 text.")] = None


class Digest(Answer):
    """What something was, without itself."""

    sha256: Annotated[
        str, Field(description="Of its JSON with sorted keys and no spaces; for outputs kept apart, of their bytes.")
    ]
    stored: Annotated[Literal["row", "apart"], Field(description="`apart`: too large for its row.")]


class ModelCall(Answer):
    """One answer of a model."""

    step: str | None = None
    round: int | None = None
    purpose: str
    call: int
    repair: int
    provider: str
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cost_usd: str | None = None
    answered_at: str


class StepProvenance(Answer):
    """One step: what it built on, who tried it, what came of it."""

    step: str
    round: int
    arm: str
    state: str
    needs: Annotated[list[str], Field(description="Steps that had to succeed before.")]
    references: Annotated[list[str], Field(description="Expressions by which its input was taken from task and steps.")]
    sent_by: str
    sent_at: str
    output: Digest | None = None
    error: str | None = None
    attempts: list[AttemptItem]
    model_calls: list[ModelCall]


class Admission(Answer):
    """How the task came in."""

    received_at: str
    source: str
    idempotency_key: str
    fingerprint: Annotated[str, Field(description="SHA-256 of the body as it was received, before redaction.")]
    redactions: Annotated[dict[str, int], Field(description="Pieces of personal data that were replaced, by type.")]
    traceparent: str


class ResultProvenance(Answer):
    """How the run ended."""

    state: TaskStateName
    reason: str | None = None
    detail: str | None = None
    finished_at: str
    mode: Annotated[
        str | None, Field(description="deterministic: made without any model; model: at least one was asked.")
    ] = None
    answer: Annotated[Digest | None, Field(description="Kept of the newest run only.")] = None


class Provenance(Answer):
    """Who asked for what, what was done, when, by whom, and what came of it, for one run of a task."""

    task: str
    tenant: str
    run: int
    runs: Annotated[int, Field(description="How many runs there are.")]
    kind: str | None = None
    goal: str | None = None
    submission: Annotated[Digest, Field(description="What was asked for, after redaction.")]
    admission: Admission
    plan: dict[str, Any] | None = None
    steps: list[StepProvenance]
    other_model_calls: Annotated[list[ModelCall], Field(description="Calls that belong to no step of the run.")]
    cost: Cost
    result: ResultProvenance | None = None
    events: Annotated[int, Field(description="How many events the run has; they are at /v1/tasks/{id}/events.")]


class TaskPage(Page[TaskItem]):
    """Tasks, newest first."""


class RunPage(Page[RunItem]):
    """Runs, oldest first."""


class StepPage(Page[StepItem]):
    """Steps by run, round and name."""


class AttemptPage(Page[AttemptItem]):
    """Attempts, oldest first."""


class EventPage(Page[TaskEvent]):
    """Events, oldest first."""


class DeadLetterPage(Page[DeadLetterItem]):
    """Dead letters, newest first."""


class CostPage(Page[CostItem]):
    """Costs by group, greatest key first: newest day, newest task."""

    group: CostGroup
    total: Annotated[Cost, Field(description="Of everything that was asked for, not of this page alone.")]
