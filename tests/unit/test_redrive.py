"""`decide` on one more run: who may open it, once, and what is left of the run before."""

from dataclasses import replace

import pytest

from octollm.contracts import StepDead, StepError
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import DeadlinePassed, Event, Redelivered, RedriveRequested
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Decision, StepEnded, TaskState
from octollm.plans.recipes import RecipeBook
from tests.helpers.decisions import ARMS, BOOK, LATER, NOW, OURS, accepted, run, succeeded
from tests.helpers.messages import about

PLANNING = Planning(BOOK, ARMS)


def wish(number: int = 1, tenant: str = "default", planning: Planning = PLANNING) -> RedriveRequested:
    return RedriveRequested(tenant, number, planning)


def dead(decision: Decision) -> StepEnded:
    error = StepError(code="deliveries_exhausted", message="killed every worker")
    return StepEnded(
        StepDead(outcome="dead", reason="deliveries_exhausted", error=error, **about(decision.requests[0]))
    )


def failed() -> TaskState:
    first = accepted(deadline_s=30)
    return decide(first.state, dead(first), NOW).state


def test_a_failed_task_runs_again_from_the_beginning_with_a_deadline_of_its_own():
    before = failed()
    decision = decide(before, wish(), LATER)
    state = decision.state
    assert (state.state, state.run, state.round, state.reason, state.detail) == ("running", 2, 0, None, None)
    assert (state.result, state.deadline_at) == (None, "2026-01-01T00:00:37.000Z")
    assert state.version == before.version + 1
    assert (decision.new_run, decision.plan_changed) == (True, True)
    assert [(step.run, step.step, step.attempt) for step in decision.requests] == [(2, "first", 1)]
    assert [(event.run, event.seq, event.event) for event in decision.events] == [
        (2, 1, "accepted"), (2, 2, "planned"), (2, 3, "step_sent"),
    ]  # fmt: skip
    assert decision.events[0].detail == "run 1 ended as failed: step_dead"
    end = run(decision, {"left": {"name": "n"}, "right": {"text": "t"}}).state
    assert end.result is not None
    assert (end.state, end.result.run, end.result.answer) == ("succeeded", 2, "n")


def test_an_expired_task_runs_again_too():
    expired = decide(accepted().state, DeadlinePassed(), "2026-01-02T00:00:00.000Z").state
    assert decide(expired, wish(), LATER).state.run == 2


def test_asked_twice_it_is_one_run_that_is_sent_again_while_it_is_out():
    first = decide(failed(), wish(), LATER)
    again = decide(first.state, wish(), LATER)
    assert (again.changed, again.requests) == (False, first.requests)
    over = decide(first.state, dead(first), LATER).state
    assert over.ended
    assert (decide(over, wish(), LATER).changed, decide(over, wish(), LATER).requests) == (False, [])
    assert decide(over, wish(2), LATER).state.run == 3
    # Its intake sent nothing of this run.
    assert decide(first.state, Redelivered(), LATER).requests == []


def test_what_a_worker_still_says_of_the_run_before_changes_nothing():
    first = accepted()
    state = decide(decide(first.state, dead(first), NOW).state, wish(), LATER).state
    for event in (succeeded(first.requests[0], {"name": "late"}), dead(first)):
        decision = decide(state, event, LATER)
        assert (decision.changed, decision.requests) == (False, [])


@pytest.mark.parametrize(
    "last", [None, OURS, StepEnded], ids=["running", "cancelled", "succeeded"]
)  # fmt: skip
def test_a_task_that_has_not_failed_stays_as_it_is(last):
    decision = accepted()
    if last is StepEnded:
        state = run(decision, {"right": {"text": "t"}}).state
        assert state.state == "succeeded"
    else:
        event: Event = last or Redelivered()
        state = decide(decision.state, event, NOW).state
    left = decide(state, wish(), LATER)
    assert (left.changed, left.state, left.requests) == (False, state, [])


def test_neither_anothers_task_nor_a_run_that_is_not_there_nor_one_without_a_submission():
    state = failed()
    unknown = replace(state, submission={})
    for asked, event in ((state, wish(tenant="other")), (state, wish(2)), (state, wish(3)), (unknown, wish())):
        decision = decide(asked, event, LATER)
        assert (decision.changed, decision.requests) == (False, [])


def test_a_recipe_that_is_gone_rejects_the_new_run():
    decision = decide(failed(), wish(planning=Planning(RecipeBook({}), ARMS)), LATER)
    assert (decision.state.run, decision.state.state, decision.state.reason) == (2, "rejected", "unknown_kind")
