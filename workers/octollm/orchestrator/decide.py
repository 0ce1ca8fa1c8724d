"""Decides what follows from an event: a pure function of the task's state and the event.

No clock, randomness or I/O.

A deadline is exact: no event that is processed after it changes anything but that the task has expired.

Events may arrive twice and in any order. An event that was applied before changes nothing; it sends again what it sent
before, because its first publication may have been lost.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from octollm.contracts import (
    StepCancelled,
    StepDead,
    StepFailed,
    StepRetrying,
    StepSucceeded,
)
from octollm.contracts.ids import later, message_id
from octollm.errors import RecipeError
from octollm.orchestrator import direct
from octollm.orchestrator.event import (
    Accepted,
    CancelRequested,
    Event,
    MessageLost,
    NotBeforeReached,
    Redelivered,
    RedriveRequested,
    Rejected,
    Unprocessable,
)
from octollm.orchestrator.finish import finish
from octollm.orchestrator.planning import Planning, Unplannable, adopt, brings_plan
from octollm.orchestrator.state import (
    INTAKE,
    REDRIVABLE,
    REDRIVE,
    Attempt,
    Decision,
    Done,
    StepEnded,
    StepRow,
    TaskState,
    error_class_of,
    has_cancelled_steps,
)
from octollm.orchestrator.step_request import step_request
from octollm.plans.stored import as_stored


def decide(state: TaskState, event: Event, now: str) -> Decision:
    """Return the new state and what to store and send.

    `now`: the database's time, UTC, RFC 3339 with milliseconds.
    """
    decision = Decision(state)
    if state.version > 0 and not state.ended and _is_overdue(state, now):
        finish(decision, now, "expired", "deadline", f"not finished by {state.deadline_at}")
    elif isinstance(event, Redelivered):
        _send_again(decision, INTAKE)
    elif isinstance(event, StepEnded):
        _step_ended(decision, event, now, _message_id(event.done))
    elif isinstance(event, RedriveRequested):
        _redrive(decision, event, now)
    elif not state.ended:
        _apply_to_running(decision, event, now)
    if decision.changed:
        decision.change(version=decision.state.version + 1, updated_at=now)
    return decision


def _apply_to_running(decision: Decision, event: Event, now: str) -> None:
    """Apply an event that concerns only a run that has not ended."""
    match event:
        case Accepted(planning):
            _accept(decision, planning, now)
        case NotBeforeReached(planning):
            _not_before_reached(decision, planning, now)
        case CancelRequested():
            _cancel(decision, event, now)
        case Rejected(reason, detail):
            decision.record(now, event="rejected", reason=reason, detail=detail)
            finish(decision, now, "rejected", reason, detail)
        case MessageLost():
            _lost(decision, event, now)
        case Unprocessable(detail):
            if decision.state.version == 0:
                decision.record(now, event="accepted")
            finish(decision, now, "failed", "poison", detail)


def _is_overdue(state: TaskState, now: str) -> bool:
    return state.deadline_at is not None and state.deadline_at <= now


def _accept(decision: Decision, planning: Planning, now: str) -> None:
    """Start the task, or only check that it can be planned if it starts later."""
    state = decision.state
    if state.starts_at is None or state.starts_at <= now:
        decision.record(now, event="accepted")
        return _start(decision, planning, now, INTAKE)
    decision.record(now, event="accepted", detail=f"starts at {state.starts_at}")
    plan = planning.plan(state)
    if isinstance(plan, Unplannable):
        finish(decision, now, "rejected", plan.reason, plan.detail)
    return None


def _not_before_reached(decision: Decision, planning: Planning, now: str) -> None:
    state = decision.state
    if state.state == "accepted" and (state.starts_at or "") <= now:
        _start(decision, planning, now, INTAKE if state.run == 1 else REDRIVE)


def _start(decision: Decision, planning: Planning, now: str, sent_by: str) -> None:
    state = decision.state
    plan = planning.plan(state)
    if isinstance(plan, Unplannable):
        return finish(decision, now, "rejected", plan.reason, plan.detail)
    decision.set_plan(plan)
    decision.change(state="running")
    if _is_overdue(state, now):
        return finish(decision, now, "expired", "deadline", f"not started by {state.deadline_at}")
    if plan.planner is None:
        decision.record(now, event="planned", detail=f"recipe {plan.recipe}, version {plan.version}")
    return _advance(decision, sent_by, now)


def _redrive(decision: Decision, event: RedriveRequested, now: str) -> None:
    """Open another run. A request names the run it follows, so that a repeated request opens only one.

    If the earlier run ended with steps in flight, the new one starts with `NotBeforeReached`, once these have stopped.
    """
    state = decision.state
    if event.tenant != state.tenant:
        return None
    if event.run == state.run - 1:
        return _send_again(decision, REDRIVE)
    if event.run != state.run or state.state not in REDRIVABLE or "goal" not in state.submission:
        return None
    waits = has_cancelled_steps(state)
    seconds = state.submission.get("deadline_s") or event.planning.deadline_s(state.kind)
    decision.new_run, decision.replaced = True, state.result
    decision.change(
        state="accepted",
        reason=None,
        detail=None,
        run=state.run + 1,
        round=0,
        seq=0,
        deadline_at=None if seconds is None else later(now, seconds),
        starts_at=now if waits else None,
        plan=None,
        steps={},
        result=None,
        memory=None,
    )
    decision.record(now, event="accepted", detail=f"run {state.run} ended as {state.state}: {state.reason}")
    return None if waits else _start(decision, event.planning, now, REDRIVE)


def _cancel(decision: Decision, event: CancelRequested, now: str) -> None:
    """Cancel the task if its own tenant asks."""
    if event.tenant != decision.state.tenant:
        return
    if decision.state.version == 0:
        decision.record(now, event="accepted")
    finish(decision, now, "cancelled", "requested", event.detail or "cancelled on request")


def _step_ended(decision: Decision, event: StepEnded, now: str, by: str) -> None:
    """Apply the end of an attempt.

    `by`: id of the message being processed, which differs for an early result.
    """
    done, state = event.done, decision.state
    row = state.steps.get((done.step, done.round))
    if done.run != state.run:
        return
    if not state.ended and direct.is_early(state, done):
        direct.keep_early(decision, event, now)
        return
    if row is None:
        return
    if state.ended or row.state != "sent" or done.attempt < row.attempt:
        # Applied before, too late, or of an attempt that a newer one has replaced.
        if by == _message_id(done):
            _send_again(decision, by)
        return
    if direct.lineage_matches(state, done):
        _apply(decision, row, event, now, by)
    else:
        _drop(decision, row, done, now, by)


def _apply(decision: Decision, row: StepRow, event: StepEnded, now: str, by: str) -> None:
    done, state = event.done, decision.state
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
            error_class=error_class_of(done),
        )
    )
    if state.detail is not None and state.detail.startswith(_needs_person(done)):
        decision.change(detail=None)  # it no longer waits, or the detail is set again below
    row = row._replace(attempt=done.attempt, worker=done.worker, delivery=done.delivery, duration_ms=done.duration_ms)
    # A repair has replaced this round: the result is history and ends nothing.
    replaced = row.round < state.round_of(row.step)
    about: dict[str, Any] = {"step": done.step, "round": done.round, "attempt": done.attempt, "arm": row.arm}
    match done:
        case StepRetrying():
            decision.put_step(row._replace(attempt=done.next_attempt, failures=done.failures, error=done.error.message))
            detail = done.error.message
            if error_class_of(done) == "needs_person":
                detail = f"{_needs_person(done)}{detail}"[:4000]
                decision.change(detail=detail)
            decision.record(now, event="step_retrying", detail=detail, **about)
        case StepFailed():
            decision.put_step(row._replace(state="failed", error=done.error.message))
            decision.record(now, event="step_failed", detail=done.error.message, **about)
            if not replaced:
                _give_up(decision, done, now)
        case StepDead():
            decision.put_step(row._replace(state="dead", error=done.error.message))
            decision.record(now, event="step_dead", detail=done.error.message, **about)
            if not replaced:
                finish(decision, now, "failed", "step_dead", f"step {done.step}: {done.error.message}")
        case StepCancelled():
            decision.put_step(row._replace(state="cancelled"))
            decision.record(now, event="step_cancelled", **about)
            finish(decision, now, "cancelled", "requested", f"step {done.step} was cancelled")
        case StepSucceeded():
            digest = direct.output_digest(state, event)
            decision.put_step(
                row._replace(
                    state="succeeded",
                    output=None if event.output is None else as_stored(event.output),
                    output_sha256=event.output_sha256,
                    digest=digest,
                )
            )
            decision.record(now, event="step_succeeded", **about)
            if not replaced:
                _succeeded(decision, done, event.output or {}, now, by)


def _needs_person(done: Done) -> str:
    """Return the beginning of a running task's detail while this step waits for a person."""
    return f"step {done.step} needs a person: "


def _give_up(decision: Decision, done: StepFailed, now: str) -> None:
    plan = decision.state.plan
    if plan is not None and brings_plan(plan, done.step) and done.error.code == "needs_model":
        # The planner's worker has no model, although this process expected one.
        return finish(decision, now, "rejected", "needs_model", done.error.message)
    return finish(decision, now, "failed", "step_failed", f"step {done.step}: {done.error.message}")


def _drop(decision: Decision, row: StepRow, done: Done, now: str, by: str) -> None:
    """Drop a result that was not made from the committed output.

    If it was the newest attempt, run the step again.
    """
    decision.attempts.append(direct.dropped_attempt(done))
    decision.change()
    if done.attempt == row.attempt and row.round == decision.state.round_of(row.step):
        detail = "its result was made from an output that was not the one committed; it runs again"
        _send(decision, direct.rerun_row(row, done, by, now), now, detail)


def _succeeded(decision: Decision, done: StepSucceeded, output: Mapping[str, Any], now: str, by: str) -> None:
    plan = decision.state.plan
    if plan is None or not brings_plan(plan, done.step):
        return _judge(decision, done, output, now, by)
    try:
        decision.set_plan(adopt(plan, output))
    except RecipeError as error:
        return finish(decision, now, "failed", "plan_invalid", f"the model's plan: {error}")
    decision.record(now, event="planned", detail="model")
    return _advance(decision, by, now)


def _judge(decision: Decision, done: StepSucceeded, output: Mapping[str, Any], now: str, by: str) -> None:
    """Start the next repair round or end the task if the verdict is "fail"; otherwise continue."""
    plan = decision.state.plan
    if plan is None or done.step not in plan.judges or output.get("verdict") != "fail":
        return _advance(decision, by, now, done)
    reasons = output.get("reasons")
    detail = "; ".join(str(reason) for reason in reasons) if isinstance(reasons, list) and reasons else "judged: fail"
    repair = plan.repair
    if repair is not None and repair.judge == done.step and decision.state.round < repair.max:
        decision.change(round=decision.state.round + 1)
        decision.record(now, event="repair_opened", round=decision.state.round, step=repair.redo, detail=detail[:4000])
        return _advance(decision, by, now)
    return finish(decision, now, "failed", "judged", detail)


def _advance(decision: Decision, sent_by: str, now: str, done: StepSucceeded | None = None) -> None:
    """Send every step whose needs have succeeded, or finish the run when all steps have.

    `done`: the end that caused this; it says which step its arm has already sent. Early results are applied last.
    """
    plan = decision.state.plan
    if plan is None:
        return
    for step in plan.steps:
        state = decision.state
        known = state.row(step.name)
        if known is not None and not known.early_results:
            continue
        if state.ended or not _have_succeeded(state, step.needs):
            continue
        row = StepRow(step.name, state.round_of(step.name), step.arm, "sent", 1, sent_by, now)
        early = known.early_results if known else ()
        chained = direct.chained_row(row, done, sent_by) if done else None
        if chained is None and early:
            chained = direct.early_row(row, early, sent_by)
        if chained is None:
            _send(decision, row, now)
        else:
            _put_sent(decision, chained, now)
        for event in sorted(early, key=lambda one: one.done.attempt):
            _step_ended(decision, event, now, sent_by)
    if not decision.state.ended and _have_succeeded(decision.state, plan.by_name):
        finish(decision, now, "succeeded", None, None)


def _have_succeeded(state: TaskState, steps: Iterable[str]) -> bool:
    for step in steps:
        row = state.row(step)
        if row is None or row.state != "succeeded":
            return False
    return True


def _send(decision: Decision, row: StepRow, now: str, detail: str | None = None) -> None:
    try:
        request = step_request(decision.state, row)
    except RecipeError as error:
        return finish(decision, now, "failed", "plan_invalid", f"step {row.step}: {error}")
    decision.requests.append(request)
    return _put_sent(decision, row, now, detail)


def _put_sent(decision: Decision, row: StepRow, now: str, detail: str | None = None) -> None:
    decision.put_step(row)
    decision.record(
        now, event="step_sent", step=row.step, round=row.round, attempt=row.attempt, arm=row.arm, detail=detail
    )  # fmt: skip


def _lost(decision: Decision, event: MessageLost, now: str) -> None:
    row = decision.state.steps.get((event.step, event.round))
    if row is None or row.state != "sent" or row.early_results or row.attempt != event.attempt:
        return
    republished = row._replace(attempt=row.attempt + 1, sent_at=now)
    _send(decision, republished, now, "its message was lost and is sent again")


def _send_again(decision: Decision, sent_by: str) -> None:
    if not decision.state.ended:
        rows = (row for row in decision.state.steps.values() if row.sent_by == sent_by and row.state == "sent")
        decision.requests += [step_request(decision.state, row) for row in rows]
        decision.repeats = True


def _message_id(done: Done) -> str:
    return message_id(done.task, done.run, done.step, done.round, done.attempt)
