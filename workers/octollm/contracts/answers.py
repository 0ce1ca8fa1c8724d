"""Response bodies of the HTTP API that are not events.

There is one model per document, used by the API and the client.

Times are RFC 3339 in UTC with milliseconds. Optional fields without a value are left out. Readers ignore unknown
fields, so that a newer server can add some.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from octollm.contracts.generated.task_event_v1_schema import TaskEvent

Item = TypeVar("Item")
TaskStateName = Literal["accepted", "running", "succeeded", "failed", "rejected", "cancelled", "expired"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "rejected", "cancelled", "expired"})
CallbackState = Literal["pending", "delivered", "failed"]
CostGroup = Literal["task", "arm", "model", "day"]


class Document(BaseModel):
    """Base of every response body."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True, defer_build=True)


class Problem(Document):
    """Why a request failed (RFC 9457)."""

    type: Annotated[str, Field(description="urn:octollm:problem:<code>; the code is stable.")]
    title: Annotated[str, Field(description="The status in words.")]
    status: int
    detail: Annotated[str, Field(description="One sentence that says what to do.")]
    field: Annotated[str | None, Field(description="The parameter, header or field to correct.")] = None


class Accepted(Document):
    """A task that was admitted."""

    task: str
    tenant: str
    state: Annotated[
        TaskStateName | Literal["unknown"],
        Field(description="Of a duplicate, its real state; `unknown` when neither Redis nor the API can say it now."),
    ]
    durability: Annotated[
        str, Field(description="Guarantee of the 202: redis, fsync, replicated(n), fsync+replicated(n) or stored.")
    ]
    duplicate: Annotated[bool, Field(description="The same submission was received before; this is its task.")]
    status_url: str


class Cancellation(Document):
    """A task whose cancellation was requested. A task that has ended is not changed."""

    task: str
    state: TaskStateName


class Redrive(Document):
    """Whether another run was requested. A task that needs none is unchanged."""

    task: str
    state: TaskStateName
    run: Annotated[int, Field(description="The run that the requested one follows, or the newest run.")]
    accepted: Annotated[bool, Field(description="False: no run was requested.")]
    detail: Annotated[str | None, Field(description="Why no run was requested.")] = None


class Drop(Document):
    """Whether the request to drop a dead letter was accepted."""

    id: int
    accepted: Annotated[bool, Field(description="False: it was dropped before.")]


class Page(Document, Generic[Item]):
    """Some items of a list, and the cursor of the next page."""

    items: list[Item]
    next: Annotated[
        str | None, Field(description="Pass it as `cursor` (events: `after`) for the next page; null: the last page.")
    ]


class TaskItem(Document):
    """One task in a list."""

    task: str
    tenant: str
    kind: str | None = None
    state: TaskStateName
    reason: Annotated[str | None, Field(description="Why it did not succeed.")] = None
    detail: str | None = None
    source: Annotated[str, Field(description="How it was submitted: http, webhook or stream.")]
    priority: Literal["high", "normal", "low"]
    goal: Annotated[str | None, Field(description="Redacted; absent if the message could not be read.")] = None
    run: int
    created_at: str
    updated_at: str
    deadline_at: str | None = None


class RunItem(Document):
    """One execution of a task."""

    run: int
    state: TaskStateName
    reason: str | None = None
    detail: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    plan: Annotated[
        dict[str, Any] | None, Field(description="The plan at the start of the run; absent if there was none.")
    ] = None


class StepItem(Document):
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
    input: Annotated[
        dict[str, Any] | None,
        Field(
            description="As the plan has it: an object with the single key `$` refers to the submission or to outputs. "
            "Absent if the plan no longer has the step."
        ),
    ] = None
    output: Annotated[dict[str, Any] | None, Field(description="Absent if there is none, or if it is too large.")] = (
        None
    )
    output_sha256: Annotated[str | None, Field(description="Hash of an output that is too large.")] = None


class AttemptItem(Document):
    """One attempt at a step and its outcome."""

    run: int
    step: str
    round: int
    attempt: int
    delivery: Annotated[int, Field(description="How often its message had been delivered.")]
    outcome: Annotated[
        str,
        Field(description="As the arm reported it; `dropped`: its input was not the output that was committed."),
    ]
    worker: str
    duration_ms: int
    finished_at: str
    error_code: str | None = None
    error_message: str | None = None
    error_class: Annotated[
        str | None, Field(description="transient, permanent or needs_person; null: it did not fail, or it is unknown.")
    ] = None


class Cost(Document):
    """Number, tokens and cost of calls to models."""

    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_usd: Annotated[
        str | None, Field(description="Exact decimal, of the calls whose price is known; null: of none.")
    ]
    unpriced_calls: Annotated[int, Field(description="Calls whose price is not known; cost_usd does not include them.")]


class CostItem(Cost):
    """The cost of one group."""

    key: Annotated[str, Field(description="Task id, arm, model, or day (UTC).")]


class DeadLetterItem(Document):
    """A dead letter: a message that could not be processed."""

    id: int
    tenant: str
    task: str | None = None
    run: Annotated[int | None, Field(description="The run of the task that it belongs to.")] = None
    reason: str
    message: Annotated[str, Field(description="What was wrong.")]
    stage: Annotated[str, Field(description="before_admission or after_admission.")]
    stream: str
    type: Annotated[str, Field(description="The message's field `type`, without control characters.")]
    bytes: Annotated[int, Field(description="Length of the body as it was received.")]
    received_at: str
    redriven_at: Annotated[str | None, Field(description="When its task started another run.")] = None
    dropped_at: Annotated[str | None, Field(description="When it was marked as needing no action.")] = None


class DeadLetter(DeadLetterItem):
    """One dead letter with the stored part of its message."""

    dead_letter: Annotated[dict[str, Any], Field(description="The event dead.letter.v1 as it was stored.")]
    stored_bytes: Annotated[int, Field(description="Length of what is stored: redacted text, or the admitted body.")]
    text: Annotated[str | None, Field(description="What is stored; absent if it is not UTF-8 text.")] = None


class CallbackItem(Document):
    """A callback: the message that a receiver gets when a task has ended."""

    id: int
    tenant: str
    task: str
    run: int
    endpoint: Annotated[str, Field(description="A name in callbacks.yaml, or the submission's URL without its query.")]
    state: CallbackState
    attempts: Annotated[int, Field(description="How many attempts have begun.")]
    created_at: str
    next_attempt_at: Annotated[str | None, Field(description="While pending: when the next attempt is due.")] = None
    attempted_at: Annotated[str | None, Field(description="When the last attempt ended.")] = None
    outcome: Annotated[str | None, Field(description="Of the last attempt, for example delivered or timeout.")] = None
    status: Annotated[int | None, Field(description="HTTP status of the last attempt, if there was an answer.")] = None
    detail: Annotated[str | None, Field(description="Why the last attempt failed.")] = None


class Callback(CallbackItem):
    """One callback with what is sent and the beginning of the last answer."""

    url: Annotated[str | None, Field(description="The submission's URL; absent: callbacks.yaml has it.")] = None
    body: Annotated[dict[str, Any], Field(description="What is sent.")]
    response: Annotated[str | None, Field(description="At most 1 KiB, without known secrets.")] = None


class Redelivery(Document):
    """A callback that is sent again."""

    id: int
    task: str
    accepted: bool


class CallbackEndpointItem(Document):
    """An endpoint of callbacks that fails or is disabled."""

    id: int
    tenant: str
    endpoint: Annotated[str, Field(description="As in a callback.")]
    failing_since: Annotated[str, Field(description="There was no success since.")]
    failures: int
    disabled_at: Annotated[str | None, Field(description="Nothing is sent since.")] = None
    detail: Annotated[str, Field(description="Why the last attempt failed.")]
    pending: Annotated[int, Field(description="Callbacks that wait to be sent.")]


class Enabling(Document):
    """An endpoint that is sent to again."""

    id: int
    endpoint: str
    accepted: bool


class Digest(Document):
    """The hash of a value, in place of the value."""

    sha256: Annotated[
        str, Field(description="Of its JSON with sorted keys and no spaces; for an output stored apart, of its bytes.")
    ]
    stored: Annotated[Literal["row", "apart"], Field(description="`apart`: outside the row, because it is large.")]


class ModelCall(Document):
    """One call to a model."""

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


class StepProvenance(Document):
    """One step: what it depended on, its attempts, its output."""

    step: str
    round: int
    arm: str
    state: str
    needs: Annotated[list[str], Field(description="Steps that had to succeed first.")]
    references: Annotated[list[str], Field(description="Expressions in its input that refer to the task and to steps.")]
    sent_by: str
    sent_at: str
    output: Digest | None = None
    error: str | None = None
    attempts: list[AttemptItem]
    model_calls: list[ModelCall]


class Admission(Document):
    """How the task was submitted."""

    received_at: str
    source: str
    idempotency_key: str
    fingerprint: Annotated[
        str,
        Field(
            description="SHA-256 of the received JSON before redaction, written with sorted keys, without spaces and "
            "with one spelling for each number."
        ),
    ]
    redactions: Annotated[dict[str, int], Field(description="How many pieces of personal data were replaced, by type.")]
    traceparent: str


class ResultProvenance(Document):
    """The result of the run."""

    state: TaskStateName
    reason: str | None = None
    detail: str | None = None
    finished_at: str
    mode: Annotated[str | None, Field(description="deterministic: no model was called; model: at least one was.")] = (
        None
    )
    answer: Annotated[Digest | None, Field(description="Only of the newest run.")] = None


class Provenance(Document):
    """The provenance of one run: the request, the steps with their attempts and model calls, the result."""

    task: str
    tenant: str
    run: int
    runs: Annotated[int, Field(description="How many runs there are.")]
    kind: str | None = None
    goal: str | None = None
    submission: Annotated[Digest, Field(description="The submission after redaction.")]
    admission: Admission
    plan: dict[str, Any] | None = None
    steps: list[StepProvenance]
    other_model_calls: Annotated[list[ModelCall], Field(description="Calls that belong to no step of the run.")]
    cost: Cost
    result: ResultProvenance | None = None
    callbacks: Annotated[list[CallbackItem], Field(description="Of the run, once it has ended.")]
    events: Annotated[int, Field(description="Number of events of the run; /v1/tasks/{id}/events lists them.")]


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


class CallbackPage(Page[CallbackItem]):
    """Callbacks, newest first."""


class CallbackEndpointPage(Page[CallbackEndpointItem]):
    """Endpoints that fail or are disabled, newest first."""


class CostPage(Page[CostItem]):
    """Costs by group, greatest key first: the newest day, the newest task."""

    group: CostGroup
    total: Annotated[Cost, Field(description="Of everything that matches, not only of this page.")]
