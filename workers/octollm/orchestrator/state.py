"""What the orchestrator knows of a task while it decides: values only, loaded and saved by the store."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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
from octollm.orchestrator.task_events import EventName, Told
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
"""In `StepRow.sent_by`: the task's own intake sent this step."""
REDRIVE = "redrive"
"""The same in a later run: the wish that opened it did."""
REDRIVABLE: frozenset[str] = frozenset({"failed", "expired"})
"""Ends that another run may change."""
Done = StepSucceeded | StepFailed | StepRetrying | StepDead | StepCancelled


class StepEnded(NamedTuple):
    """How an attempt ended. An output that was stored by reference has been fetched: `output`."""

    done: Done
    output: Mapping[str, Any] | None = None
    output_sha256: str | None = None


class StepRow(NamedTuple):
    """One step in one round, from the moment it was first sent."""

    step: str
    round: int
    arm: str
    state: StepState
    attempt: int
    """Highest attempt known; results of older ones are refused."""
    sent_by: str
    """The event that sent it: `INTAKE`, `REDRIVE` or the message id of a `step.done.v1`. Met again, it sends again.

    Of a step that was handed on directly: what tells that, which sends nothing; see `direct.py`.
    """
    sent_at: str
    """When its newest message was sent, as far as the orchestrator sent it itself; retries are the worker's."""
    failures: int = 0
    output: Mapping[str, Any] | None = None
    output_sha256: str | None = None
    """Where the output is too large for the row: it lies in the table outputs."""
    error: str | None = None
    duration_ms: int | None = None
    worker: str | None = None
    delivery: int | None = None
    digest: str | None = None
    """Of the committed output, where a step may have been handed on that was made from it."""
    early_results: tuple[StepEnded, ...] = ()
    """Ends that came before those of the step it builds on; kept until these are committed."""


ErrorClass = Literal["transient", "permanent", "needs_person"]
"""What a failed attempt calls for: another try, none, or a person."""


class Attempt(NamedTuple):
    """How one attempt ended; history, never changed."""

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
    """One task in its current run."""

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
    """The newest repair round."""
    version: int = 0
    seq: int = 0
    """The newest event's number within the run."""
    deadline_at: str | None = None
    updated_at: str | None = None
    plan: Plan | None = None
    steps: Mapping[tuple[str, int], StepRow] = field(default_factory=dict)
    result: TaskResult | None = None
    memory: Mapping[str, Any] | None = None
    """What memory is to keep of it, checked."""

    @property
    def kind(self) -> str | None:
        """Which recipe plans it."""
        kind = self.submission.get("kind")
        return None if kind is None else str(kind)

    @property
    def not_before(self) -> str | None:
        """When its first run may begin."""
        moment = self.submission.get("not_before")
        return None if moment is None else str(moment)

    @property
    def ended(self) -> bool:
        """Whether the run has its terminal state."""
        return self.state in TERMINAL

    def round_of(self, step: str) -> int:
        """The round a step is in: only what a repair redoes is in a later one than 0."""
        if self.round == 0 or self.plan is None or self.plan.repair is None:
            return 0
        return self.round if step in self.plan.downstream(self.plan.repair.redo) else 0

    def row(self, step: str) -> StepRow | None:
        """A step's row in the round it is in."""
        return self.steps.get((step, self.round_of(step)))


_FIELDS = len(fields(TaskState))


@dataclass
class Decision:
    """The new state, and what is to be stored and sent because of it."""

    state: TaskState
    changed: bool = False
    """Whether anything must be stored. Sends alone repeat what was stored before."""
    steps: dict[tuple[str, int], StepRow] = field(default_factory=dict)
    sends: list[StepRequested] = field(default_factory=list)
    again: bool = False
    """Whether these sends repeat those of an event that was applied before."""
    events: list[Told] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    planned: bool = False
    """Whether the run's plan is new and must be stored."""
    opened: bool = False
    """Whether the run is new, and those before it are history."""

    def change(self, **values: Any) -> None:  # noqa: ANN401  fields of TaskState, checked here
        """Replace fields of the state."""
        # As `replace` does, but not by setting all the other fields one by one: a decision comes here ten times.
        state = object.__new__(TaskState)
        known = state.__dict__
        known.update(self.state.__dict__, **values)
        if len(known) != _FIELDS:
            raise TypeError(f"a task's state has no {', '.join(sorted(values.keys() - self.state.__dict__.keys()))}")
        self.state = state
        self.changed = True

    def plan(self, plan: Plan) -> None:
        """Give the run its plan, or a longer one."""
        self.change(plan=plan)
        self.planned = True

    def tell(self, now: str, event: EventName, detail: str | None = None, **about: str | int | None) -> None:
        """One more event of the run; see `Told.of`."""
        state = self.state
        self.change(seq=state.seq + 1)
        self.events.append(Told.of(state.task, state.run, state.seq + 1, state.tenant, now, event, detail, **about))

    def put(self, row: StepRow) -> None:
        """Store a step's new row."""
        key = (row.step, row.round)
        self.steps[key] = row
        self.change(steps={**self.state.steps, key: row})
