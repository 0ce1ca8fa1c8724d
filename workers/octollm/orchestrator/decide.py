"""What follows from an event: a pure function of the task's state and the event. No clock, no chance, no I/O.

Events may arrive twice and in any order. One that was applied before changes nothing and sends again what it sent
before, since its first sending may have been lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from octollm.contracts import (
    StepCancelled,
    StepDead,
    StepFailed,
    StepRequested,
    StepRetrying,
    StepSucceeded,
    StepSummary,
    TaskEvent,
    TaskResult,
)
from octollm.contracts.ids import message_id
from octollm.errors import InvalidInputError, RecipeError
from octollm.orchestrator.state import INTAKE, Attempt, Decision, Reason, StepRow, TaskState, Terminal
from octollm.plans import template
from octollm.plans.plan import Plan
from octollm.plans.recipes import RecipeBook

Done = StepSucceeded | StepFailed | StepRetrying | StepDead | StepCancelled


@dataclass(frozen=True, slots=True)
class Accepted:
    """The task was admitted and is new here. Its recipe, if there is one for its kind, is in `book`."""

    book: RecipeBook


@dataclass(frozen=True, slots=True)
class Refused:
    """The task is to be kept, but not to be worked on."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Met:
    """The task's own message was met again."""


@dataclass(frozen=True, slots=True)
class StepEnded:
    """How an attempt ended. An output that was stored by reference has been fetched: `output`."""

    done: Done
    output: Mapping[str, Any] | None = None
    output_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Somebody looked at the clock."""


@dataclass(frozen=True, slots=True)
class MessageLost:
    """A step's message is nowhere any more."""

    step: str
    round: int
    attempt: int


Event = Accepted | Refused | Met | StepEnded | DeadlinePassed | MessageLost


def decide(state: TaskState, event: Event, now: str) -> Decision:
    """The new state and what to store and send. `now`: UTC, RFC 3339 with milliseconds."""
    decision = Decision(state)
    if isinstance(event, Met):
        _send_again(decision, INTAKE)
    elif isinstance(event, StepEnded):
        _step_ended(decision, event, now)
    elif not state.ended:
        match event:
            case Accepted(book):
                _accept(decision, book, now)
            case Refused(reason, detail):
                _tell(decision, now, event="rejected", reason=reason, detail=detail)
                _finish(decision, now, "rejected", reason, detail)
            case DeadlinePassed():
                if state.deadline_at is not None and state.deadline_at <= now:
                    _finish(decision, now, "expired", "deadline", f"not finished by {state.deadline_at}")
            case MessageLost():
                _lost(decision, event, now)
    if decision.changed:
        decision.change(version=decision.state.version + 1, updated_at=now)
    return decision


def _accept(decision: Decision, book: RecipeBook, now: str) -> None:
    state = decision.state
    _tell(decision, now, event="accepted")
    if state.kind is None:
        detail = "the task names no kind, and without a model only recipes can plan"
        return _finish(decision, now, "rejected", "needs_model", detail)
    recipe = book.get(state.kind)
    if recipe is None:
        known = ", ".join(book.kinds)
        return _finish(decision, now, "rejected", "unknown_kind", f"no recipe for {state.kind}; there are {known}")
    try:
        recipe.check_input(state.submission.get("input") or {})
    except InvalidInputError as error:
        return _finish(decision, now, "rejected", "invalid_input", str(error))
    decision.change(plan=recipe.plan, state="running")
    if state.deadline_at is not None and state.deadline_at <= now:
        return _finish(decision, now, "expired", "deadline", f"not begun by {state.deadline_at}")
    _tell(decision, now, event="planned", detail=f"recipe {recipe.plan.recipe}, version {recipe.plan.version}")
    return _advance(decision, INTAKE, now)


def _step_ended(decision: Decision, event: StepEnded, now: str) -> None:
    done, state = event.done, decision.state
    row = state.steps.get((done.step, done.round))
    if row is None or done.run != state.run:
        return
    if state.ended or row.state != "sent" or done.attempt < row.attempt:
        # Applied before, too late, or of an attempt that a newer one has replaced.
        _send_again(decision, _ident(done))
        return
    error = getattr(done, "error", None)
    decision.attempts.append(
        Attempt(
            step=done.step,
            round=done.round,
            attempt=done.attempt,
            delivery=done.delivery,
            outcome=done.outcome,
            worker=done.worker,
            duration_ms=done.duration_ms,
            finished_at=done.finished_at,
            error_code=error.code if error else None,
            error_message=error.message if error else None,
        )
    )
    row = replace(row, attempt=done.attempt, worker=done.worker, delivery=done.delivery, duration_ms=done.duration_ms)
    # Of a round that a repair has replaced: it is history, and ends nothing.
    replaced = row.round < state.round_of(row.step)
    about: dict[str, Any] = {"step": done.step, "round": done.round, "attempt": done.attempt, "arm": row.arm}
    match done:
        case StepRetrying():
            decision.put(replace(row, attempt=done.next_attempt, failures=done.failures, error=done.error.message))
            _tell(decision, now, event="step_retrying", detail=done.error.message, **about)
        case StepFailed():
            decision.put(replace(row, state="failed", error=done.error.message))
            _tell(decision, now, event="step_failed", detail=done.error.message, **about)
            if not replaced:
                _finish(decision, now, "failed", "step_failed", f"step {done.step}: {done.error.message}")
        case StepDead():
            decision.put(replace(row, state="dead", error=done.error.message))
            _tell(decision, now, event="step_dead", detail=done.error.message, **about)
            if not replaced:
                _finish(decision, now, "failed", "step_dead", f"step {done.step}: {done.error.message}")
        case StepCancelled():
            decision.put(replace(row, state="cancelled"))
            _tell(decision, now, event="step_cancelled", **about)
            _finish(decision, now, "cancelled", "requested", f"step {done.step} was cancelled")
        case StepSucceeded():
            decision.put(replace(row, state="succeeded", output=event.output, output_sha256=event.output_sha256))
            _tell(decision, now, event="step_succeeded", **about)
            if not replaced:
                _judge(decision, done, event.output or {}, now)


def _judge(decision: Decision, done: StepSucceeded, output: Mapping[str, Any], now: str) -> None:
    """A verdict "fail" opens the next repair round or ends the task; anything else goes on."""
    plan = decision.state.plan
    if plan is None or done.step not in plan.judges or output.get("verdict") != "fail":
        return _advance(decision, _ident(done), now)
    reasons = output.get("reasons")
    detail = "; ".join(str(reason) for reason in reasons) if isinstance(reasons, list) and reasons else "judged: fail"
    repair = plan.repair
    if repair is not None and repair.judge == done.step and decision.state.round < repair.max:
        decision.change(round=decision.state.round + 1)
        _tell(decision, now, event="repair_opened", round=decision.state.round, step=repair.redo, detail=detail[:4000])
        return _advance(decision, _ident(done), now)
    return _finish(decision, now, "failed", "judged", detail)


def _advance(decision: Decision, sent_by: str, now: str) -> None:
    """Send every step that nothing blocks any more, or finish when all have succeeded."""
    plan = decision.state.plan
    if plan is None:
        return None
    for step in plan.steps:
        state = decision.state
        if state.row(step.name) is not None:
            continue
        needed = [state.row(need) for need in step.needs]
        if not all(row is not None and row.state == "succeeded" for row in needed):
            continue
        row = StepRow(step.name, state.round_of(step.name), step.arm, "sent", 1, sent_by)
        try:
            request = _request(state, row)
        except RecipeError as error:
            return _finish(decision, now, "failed", "plan_invalid", f"step {step.name}: {error}")
        decision.put(row)
        decision.sends.append(request)
        _tell(decision, now, event="step_sent", step=row.step, round=row.round, attempt=1, arm=row.arm)
    rows = [decision.state.row(step.name) for step in plan.steps]
    if all(row is not None and row.state == "succeeded" for row in rows):
        _finish(decision, now, "succeeded", None, None)
    return None


def _lost(decision: Decision, event: MessageLost, now: str) -> None:
    row = decision.state.steps.get((event.step, event.round))
    if row is None or row.state != "sent" or row.attempt != event.attempt:
        return
    again = replace(row, attempt=row.attempt + 1)
    decision.put(again)
    decision.sends.append(_request(decision.state, again))
    _tell(
        decision, now, event="step_sent", step=row.step, round=row.round, attempt=again.attempt, arm=row.arm,
        detail="its message was lost and is sent again",
    )  # fmt: skip


def _send_again(decision: Decision, sent_by: str) -> None:
    if not decision.state.ended:
        rows = (row for row in decision.state.steps.values() if row.sent_by == sent_by and row.state == "sent")
        decision.sends += [_request(decision.state, row) for row in rows]


def _request(state: TaskState, row: StepRow) -> StepRequested:
    plan = _plan(state)
    return StepRequested(
        task=state.task,
        run=state.run,
        step=row.step,
        round=row.round,
        attempt=row.attempt,
        tenant=state.tenant,
        arm=row.arm,
        priority=state.priority,
        failures=row.failures,
        input=template.resolve(plan.by_name[row.step].input, _context(state, row.round)),
        timeout_s=plan.by_name[row.step].timeout_s,
        deadline_at=state.deadline_at,
    )


def _context(state: TaskState, round_: int) -> dict[str, Any]:
    """What expressions see; of each step the newest output up to this round."""
    newest: dict[str, StepRow] = {}
    for (name, number), row in sorted(state.steps.items(), key=lambda item: item[0][1]):
        if row.output is not None and number <= round_:
            newest[name] = row
    submission = state.submission
    return {
        "task": {
            "goal": submission.get("goal"),
            "kind": submission.get("kind"),
            "input": submission.get("input") or {},
            "metadata": submission.get("metadata") or {},
        },
        "steps": {
            name: {"output": row.output, "round": row.round, "attempt": row.attempt} for name, row in newest.items()
        },
        "round": round_,
    }


def _finish(decision: Decision, now: str, end: Terminal, reason: Reason | None, detail: str | None) -> None:
    """The run's one terminal state, with its result."""
    answer: Any = None
    if decision.state.plan is not None and (end == "succeeded" or reason == "judged"):
        try:
            answer = template.resolve(decision.state.plan.answer, _context(decision.state, decision.state.round))
        except RecipeError as error:
            end, reason, detail = "failed", "plan_invalid", f"answer: {error}"
    detail = detail[:4000] if detail else None
    for row in list(decision.state.steps.values()):
        if row.state == "sent":
            decision.put(replace(row, state="cancelled"))
    state = decision.state
    result = TaskResult(
        task=state.task,
        run=state.run,
        tenant=state.tenant,
        kind=state.kind,
        state=end,
        reason=reason,
        detail=detail,
        answer=answer,
        steps=_summaries(state),
        mode="deterministic",
        redactions=dict(state.redactions),
        finished_at=now,
    )
    decision.change(state=end, reason=reason, detail=detail, result=result)
    # What was about to be sent is not: the task has ended.
    decision.sends.clear()
    _tell(decision, now, event="finished", state=end, reason=reason, detail=detail)


def _summaries(state: TaskState) -> list[StepSummary]:
    order = {step.name: place for place, step in enumerate(state.plan.steps)} if state.plan else {}
    rows = sorted(state.steps.values(), key=lambda row: (row.round, order.get(row.step, 0)))
    known = [
        StepSummary(
            step=row.step,
            arm=row.arm,
            round=row.round,
            attempt=row.attempt,
            state=row.state,
            duration_ms=row.duration_ms,
        )
        for row in rows
    ]
    names = {row.step for row in rows}
    never = [
        StepSummary(step=step.name, arm=step.arm, round=0, attempt=0, state="skipped")
        for step in (state.plan.steps if state.plan else ())
        if step.name not in names
    ]
    return known + never


def _tell(decision: Decision, now: str, **fields: Any) -> None:  # noqa: ANN401  fields of TaskEvent, checked there
    state = decision.state
    decision.change(seq=state.seq + 1)
    decision.events.append(
        TaskEvent(task=state.task, run=state.run, seq=state.seq + 1, tenant=state.tenant, at=now, **fields)
    )


def _ident(done: Done) -> str:
    return message_id(done.task, done.run, done.step, done.round, done.attempt)


def _plan(state: TaskState) -> Plan:
    if state.plan is None:
        raise RecipeError(f"task {state.task} has no plan")
    return state.plan
