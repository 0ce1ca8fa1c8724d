"""Direct hand-off as the orchestrator sees it: steps that an arm sent on, and ends that come before their turn. Pure.

An arm tells of its step's end and sends the next step in one breath, but the two travel on different streams. What a
handed-on step gives is committed only if it was made from the outputs that are committed (`fits`); until they are there
it is kept in its row (`keep`); if they are others it is dropped and the step is sent again.
"""

from octollm.contracts import StepRequested, StepRetrying, StepSucceeded
from octollm.orchestrator.requests import context
from octollm.orchestrator.state import Attempt, Decision, Done, StepEnded, StepRow, TaskState
from octollm.plans import chain

_EARLY = "not yet"
"""In `StepRow.sent_by`: an arm sent it, and the end of the arm's own step is still on its way."""
_HANDED_ON = "handed on: "
"""Before the message id of the end that told of it."""


def with_rest(state: TaskState, message: StepRequested) -> StepRequested:
    """A step's message with the steps that may follow without the orchestrator.

    Not where the next one's end is here already: its result may be right.
    """
    row = state.steps[message.step, message.round]
    if state.plan is None:
        return message
    steps = []
    for step in chain.following(state.plan, message.step):
        if state.round_of(step.name) != message.round or state.row(step.name) is not None:
            break
        steps.append(step)
    # Rises with every re-send, as failures do not: what a lost message has handed on is told from what this one will.
    attempt = max(1, row.attempt - row.failures)
    continuation = chain.continuation(steps, context(state, message.round), {}, attempt)
    return message if continuation is None else message.model_copy(update={"continuation": continuation})


def chained(row: StepRow, done: Done, sent_by: str) -> StepRow | None:
    """The row of a step that `done` says was sent in the same breath; None: it does not say so."""
    told = done.chained if isinstance(done, StepSucceeded) else None
    if told is None or told.step != row.step:
        return None
    return row._replace(attempt=told.attempt, sent_by=f"{_HANDED_ON}{sent_by}")


def met_early(row: StepRow, early: tuple[StepEnded, ...], sent_by: str) -> StepRow:
    """The row of a step whose end came first, although nothing says that it was handed on."""
    return row._replace(attempt=max(one.done.attempt for one in early), sent_by=f"{_HANDED_ON}{sent_by}")


def is_early(state: TaskState, done: Done) -> bool:
    """Whether this is the end of a step that was handed on before those it needs are committed."""
    step = None if state.plan is None else state.plan.by_name.get(done.step)
    row = state.steps.get((done.step, done.round))
    if step is None or done.round != state.round_of(done.step) or not (row is None or row.early_results):
        return False
    needed = (state.row(need) for need in step.needs)
    return any(one is None or one.state != "succeeded" for one in needed)


def keep(decision: Decision, event: StepEnded, now: str) -> None:
    """Keep an early end in its row; the same one twice is one."""
    done, state = event.done, decision.state
    row = state.steps.get((done.step, done.round))
    if row is None:
        row = StepRow(done.step, done.round, done.arm, "sent", done.attempt, _EARLY, now)
    if event not in row.early_results:
        decision.put(row._replace(attempt=max(row.attempt, done.attempt), early_results=(*row.early_results, event)))


def fits(state: TaskState, done: Done) -> bool:
    """Whether what the step was made from is what is committed."""
    made_from = getattr(done, "builds_on", None) or {}
    rows = {name: state.steps.get((name, done.round)) for name in made_from}
    return all(row is not None and row.digest == made_from[name] for name, row in rows.items())


def digest(state: TaskState, event: StepEnded) -> str | None:
    """What to store beside an output that a handed-on step may name. One that travels by reference is never named."""
    if state.plan is None or event.output is None or event.output_sha256 is not None:
        return None
    return chain.digest(event.output) if chain.leads_on(state.plan, event.done.step) else None


def dropped(done: Done) -> Attempt:
    """The history of an attempt whose result is not committed."""
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


def again(row: StepRow, done: Done, sent_by: str, now: str) -> StepRow:
    """The row of a step that is done again because its newest result was dropped; also its next try is void."""
    attempt = max(row.attempt, done.next_attempt if isinstance(done, StepRetrying) else done.attempt) + 1
    return row._replace(attempt=attempt, sent_by=sent_by, sent_at=now)
