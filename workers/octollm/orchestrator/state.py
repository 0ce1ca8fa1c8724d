"""State of a task and the decision that changes it: values only, loaded and saved by `store.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

from octollm.contracts import (
    StepCancelled,
    StepDead,
    StepFailed,
    StepRequested,
    StepRetrying,
    StepSucceeded,
    TaskResult,
)
from octollm.errors import NEEDS_PERSON
from octollm.orchestrator.task_events import EventName, TaskEvent
from octollm.plans.plan import Plan

Priority = Literal["high", "normal", "low"]
StepState = Literal["sent", "succeeded", "failed", "dead", "cancelled"]
TaskStateName = Literal["accepted", "running", "succeeded", "failed", "rejected", "cancelled", "expired"]
Terminal = Literal["succeeded", "failed", "rejected", "cancelled", "expired"]
Reason = Literal[
    "judged",
    "step_failed",
    "step_dead",
    "poison",
    "plan_invalid",
    "injection",
    "tenant_mismatch",
    "duplicate",
    "needs_model",
    "unknown_kind",
    "invalid_input",
    "deadline",
    "requested",
]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "rejected", "cancelled", "expired"})
INTAKE = "intake"
"""In `StepRow.sent_by`: the step was sent when the task arrived."""
REDRIVE = "redrive"
"""In `StepRow.sent_by`: the step was sent when another run was requested."""
REDRIVABLE: frozenset[str] = frozenset({"failed", "expired"})
"""Terminal states after which another run may be requested."""
Done = StepSucceeded | StepFailed | StepRetrying | StepDead | StepCancelled


class StepEnded(NamedTuple):
    """How an attempt ended."""

    done: Done
    output: Mapping[str, Any] | None = None
    """None for a stored output that has not been loaded."""
    output_sha256: str | None = None
    """Digest of an output that is too large for a message and is in the table `outputs`."""


class StepRow(NamedTuple):
    """One step in one round. It exists from the first time the step was sent."""

    step: str
    round: int
    arm: str
    state: StepState
    attempt: int
    """Highest known attempt; results of older attempts are ignored."""
    sent_by: str
    """The event that sent it: `INTAKE`, `REDRIVE` or the message id of a `step.done.v1`. Its redelivery sends it again.

    For a chained step, which the arm before it has sent, a value that no event has; see `direct.py`.
    """
    sent_at: str
    """When the orchestrator last sent it; retries are sent by workers and do not count."""
    failures: int = 0
    output: Mapping[str, Any] | None = None
    output_sha256: str | None = None
    """Set if the output is too large for the row and is in the table `outputs`."""
    error: str | None = None
    duration_ms: int | None = None
    worker: str | None = None
    delivery: int | None = None
    digest: str | None = None
    """Of the committed output, if a step may have been chained on it."""
    early_results: tuple[StepEnded, ...] = ()
    """Results that arrived before those of the step they build on; kept until these are committed."""


ErrorClass = Literal["transient", "permanent", "needs_person"]
"""What a failed attempt needs: another attempt, nothing, or a person."""


def error_class_of(done: Done) -> ErrorClass | None:
    """Return what a failed attempt needs; None if it did not fail, or is unknown because its worker died."""
    match done:
        case StepFailed():
            return "permanent"
        case StepRetrying() | StepDead() if done.error.code.startswith(NEEDS_PERSON):
            return "needs_person"
        case StepRetrying() | StepDead(reason="failures_exhausted"):
            return "transient"
        case _:
            return None


class Attempt(NamedTuple):
    """How one attempt ended. History: never changed."""

    step: str
    round: int
    attempt: int
    delivery: int
    outcome: str
    worker: str
    duration_ms: int
    finished_at: str
    error_code: str | None = None
    error_message: str | None = None
    error_class: ErrorClass | None = None


@dataclass(frozen=True)
class TaskState:
    """A task in its current run."""

    task: str
    tenant: str
    submission: Mapping[str, Any]
    source: str
    idempotency_key: str
    fingerprint: str
    redactions: Mapping[str, int]
    priority: Priority
    received_at: str
    traceparent: str
    state: TaskStateName = "accepted"
    reason: Reason | None = None
    detail: str | None = None
    run: int = 1
    round: int = 0
    """Newest repair round."""
    version: int = 0
    seq: int = 0
    """Number of the newest event within the run."""
    deadline_at: str | None = None
    starts_at: str | None = None
    """Earliest start of the run; None: at once."""
    updated_at: str | None = None
    plan: Plan | None = None
    steps: Mapping[tuple[str, int], StepRow] = field(default_factory=dict)
    result: TaskResult | None = None
    memory: Mapping[str, Any] | None = None
    """What the task writes to memory, see `octollm.plans.memory_facts`."""

    @property
    def kind(self) -> str | None:
        """The recipe's name, if the task has one."""
        kind = self.submission.get("kind")
        return None if kind is None else str(kind)

    @property
    def ended(self) -> bool:
        """Whether the run has reached a terminal state."""
        return self.state in TERMINAL

    def round_of(self, step: str) -> int:
        """Return the round a step is in: 0, except for steps that a repair repeats."""
        if self.round == 0 or self.plan is None or self.plan.repair is None:
            return 0
        return self.round if step in self.plan.downstream(self.plan.repair.redo) else 0

    def row(self, step: str) -> StepRow | None:
        """Return a step's row in its current round, or None if it has not been sent."""
        return self.steps.get((step, self.round_of(step)))


_FIELDS = len(fields(TaskState))


def has_cancelled_steps(state: TaskState) -> bool:
    """Whether steps were in flight when the run ended: they, or steps chained to them, may still run."""
    return any(row.state == "cancelled" for row in state.steps.values())


@dataclass
class Decision:
    """The new state of a task, and what must be stored and sent because of one event."""

    state: TaskState
    changed: bool = False
    """Whether anything must be stored. Requests alone repeat what was stored before."""
    steps: dict[tuple[str, int], StepRow] = field(default_factory=dict)
    """New or changed rows by step and round."""
    requests: list[StepRequested] = field(default_factory=list)
    """Steps to send."""
    repeats: bool = False
    """Whether the requests may have been sent before, so that each is only sent if its message does not exist."""
    events: list[TaskEvent] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    plan_changed: bool = False
    """Whether the run's plan must be stored."""
    new_run: bool = False
    """Whether this event started another run."""
    replaced: TaskResult | None = None
    """The result of the run before, which the new run replaces in the task's row."""
    finished: bool = False
    """Whether this event ended the run, so that memory must receive its result."""
    steps_unknown: bool = False
    """Whether the state has no steps because they were not loaded."""

    @property
    def left_in_flight(self) -> bool:
        """Whether the run has ended while steps of it were in flight, which must be stopped."""
        return self.state.ended and (self.steps_unknown or has_cancelled_steps(self.state))

    def change(self, **values: Any) -> None:  # noqa: ANN401  fields of TaskState, checked here
        """Replace fields of the state. Raises TypeError for a field that TaskState does not have."""
        # Like dataclasses.replace, but without setting every other field: a decision comes here about ten times.
        state = object.__new__(TaskState)
        known = state.__dict__
        known.update(self.state.__dict__, **values)
        if len(known) != _FIELDS:
            raise TypeError(f"a task's state has no {', '.join(sorted(values.keys() - self.state.__dict__.keys()))}")
        self.state = state
        self.changed = True

    def set_plan(self, plan: Plan) -> None:
        """Set the run's plan, or replace it with a longer one."""
        self.change(plan=plan)
        self.plan_changed = True

    def record(self, now: str, event: EventName, detail: str | None = None, **about: str | int | None) -> None:
        """Add an event to the run's history; see `TaskEvent.build`."""
        state = self.state
        self.change(seq=state.seq + 1)
        self.events.append(
            TaskEvent.build(state.task, state.run, state.seq + 1, state.tenant, now, event, detail, **about)
        )

    def put_step(self, row: StepRow) -> None:
        """Add a step's row, or replace it."""
        key = (row.step, row.round)
        self.steps[key] = row
        self.change(steps={**self.state.steps, key: row})

    def merge(self, later: "Decision") -> None:
        """Add a later decision about the same run, so that both are stored at once."""
        self.state = later.state
        self.steps |= later.steps
        self.attempts += later.attempts
        self.events += later.events
        self.plan_changed |= later.plan_changed

    def copy(self) -> "Decision":
        """Return a copy that `merge` can change without changing this decision."""
        return replace(
            self, steps=dict(self.steps), attempts=list(self.attempts), events=list(self.events)
        )  # fmt: skip
