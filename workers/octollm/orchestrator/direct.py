"""Direct hand-off in the orchestrator.

It handles steps that an arm sent itself, and results that arrive out of order. Pure.

An arm publishes the end of its step and the next step in one script call, but the two are on different streams. The
result of a chained step is committed only if the step was made from the outputs that are committed
(`lineage_matches`). Until those are committed the result is kept in the step's row (`keep_early`); if others are
committed it is dropped and the step is sent again.
"""

from octollm.contracts import StepRequested, StepRetrying, StepSucceeded
from octollm.orchestrator.state import Attempt, Decision, Done, StepEnded, StepRow, TaskState
from octollm.orchestrator.step_request import reference_context
from octollm.plans import chain

_EARLY = "not yet"
"""In `StepRow.sent_by`: an arm sent the step, and the end of the arm's own step has not arrived."""
_CHAINED = "chained: "
"""In `StepRow.sent_by`, before the id of the message that reported the chained step."""


def with_continuation(state: TaskState, request: StepRequested) -> StepRequested:
    """Add the steps that may follow without the orchestrator to a step's request.

    It stops before a step that has a row: an early result of it may be the right one.
    """
    row = state.steps[request.step, request.round]
    if state.plan is None:
        return request
    steps = []
    for step in chain.following(state.plan, request.step):
        if state.round_of(step.name) != request.round or state.row(step.name) is not None:
            break
        steps.append(step)
    # Rises whenever the step is sent again, which failures do not: distinguishes what a lost message has chained from
    # what this one will chain.
    attempt = max(1, row.attempt - row.failures)
    continuation = chain.continuation(steps, reference_context(state, request.round), {}, attempt)
    return request if continuation is None else request.model_copy(update={"continuation": continuation})


def chained_row(row: StepRow, done: Done, sent_by: str) -> StepRow | None:
    """Return the row of a step that the arm of `done` has sent itself, or None if it did not."""
    chained = done.chained if isinstance(done, StepSucceeded) else None
    if chained is None or chained.step != row.step:
        return None
    return row._replace(attempt=chained.attempt, sent_by=f"{_CHAINED}{sent_by}")


def early_row(row: StepRow, early: tuple[StepEnded, ...], sent_by: str) -> StepRow:
    """Return the row of a step whose result arrived although no message reported that it was chained."""
    return row._replace(attempt=max(one.done.attempt for one in early), sent_by=f"{_CHAINED}{sent_by}")


def is_early(state: TaskState, done: Done) -> bool:
    """Whether this is the result of a step that was chained before the steps it needs are committed."""
    step = None if state.plan is None else state.plan.by_name.get(done.step)
    row = state.steps.get((done.step, done.round))
    if step is None or done.round != state.round_of(done.step) or not (row is None or row.early_results):
        return False
    needed = (state.row(need) for need in step.needs)
    return any(one is None or one.state != "succeeded" for one in needed)


def keep_early(decision: Decision, event: StepEnded, now: str) -> None:
    """Keep an early result in the step's row, unless it is there already."""
    done, state = event.done, decision.state
    row = state.steps.get((done.step, done.round))
    if row is None:
        row = StepRow(done.step, done.round, done.arm, "sent", done.attempt, _EARLY, now)
    if event not in row.early_results:
        attempt = max(row.attempt, done.attempt)
        decision.put_step(row._replace(attempt=attempt, early_results=(*row.early_results, event)))


def lineage_matches(state: TaskState, done: Done) -> bool:
    """Whether the outputs that the step was made from are the ones that are committed."""
    made_from = getattr(done, "builds_on", None) or {}
    rows = {name: state.steps.get((name, done.round)) for name in made_from}
    return all(row is not None and row.digest == made_from[name] for name, row in rows.items())


def output_digest(state: TaskState, event: StepEnded) -> str | None:
    """Return the digest to store with an output if a chained step may refer to it.

    Outputs that are stored by reference are never built on.
    """
    if state.plan is None or event.output is None or event.output_sha256 is not None:
        return None
    return chain.digest(event.output) if chain.may_precede(state.plan, event.done.step) else None


def dropped_attempt(done: Done) -> Attempt:
    """Return the history of an attempt whose result is not committed."""
    return Attempt(
        step=done.step,
        round=done.round,
        attempt=done.attempt,
        delivery=done.delivery,
        outcome="dropped",
        worker=done.worker,
        duration_ms=done.duration_ms,
        finished_at=done.finished_at,
        error_code="built_on_another_output",
        error_message="made from an output that was not the one committed",
    )


def rerun_row(row: StepRow, done: Done, sent_by: str, now: str) -> StepRow:
    """Return the row for running a step again whose result was dropped.

    A retry that is scheduled becomes void.
    """
    attempt = max(row.attempt, done.next_attempt if isinstance(done, StepRetrying) else done.attempt) + 1
    return row._replace(attempt=attempt, sent_by=sent_by, sent_at=now)
