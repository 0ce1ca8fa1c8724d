"""`decide` on cancelling, open steps, what is indexed, and plans that a model makes."""

import itertools
from dataclasses import replace

import pytest

from octollm.contracts import StepError, StepFailed, StepRequested, StepRetrying, write
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import Accepted, CancelRequested, DeadlinePassed, Event, MessageLost, Redelivered
from octollm.orchestrator.messages import status_of
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import StepEnded, TaskState
from octollm.plans.plan import Plan
from tests.helpers.decisions import ARMS, BOOK, LATER, NOW, OURS, accepted, fresh, run, succeeded
from tests.helpers.messages import about


def failed(step: StepRequested, code: str = "no_use") -> StepEnded:
    return StepEnded(StepFailed(outcome="failed", error=StepError(code=code, message="it cannot work"), **about(step)))


def events_of(first: StepRequested) -> list[Event]:
    retrying = StepRetrying(
        outcome="retrying",
        error=StepError(code="away", message="away"),
        next_attempt=2,
        failures=1,
        delay_ms=5,
        **about(first),
    )
    return [
        Redelivered(),
        succeeded(first, {"name": "n"}),
        StepEnded(retrying),
        MessageLost("first", 0, 1),
        failed(first),
    ]


def test_a_request_ends_a_task_at_once_with_its_reason():
    decision = decide(accepted().state, OURS, LATER)
    state = decision.state
    assert (state.state, state.reason, state.detail) == ("cancelled", "requested", "no longer needed")
    assert {row.state for row in state.steps.values()} == {"cancelled"}
    assert [event.event for event in decision.events] == ["finished"]
    assert decide(accepted().state, CancelRequested("default"), NOW).state.detail == "cancelled on request"


def test_a_task_that_was_cancelled_before_it_came_never_sends_a_step():
    decision = decide(fresh(), OURS, NOW)
    assert (decision.state.state, decision.requests, decision.state.steps) == ("cancelled", [], {})
    assert [event.event for event in decision.events] == ["accepted", "finished"]
    assert decide(decision.state, Redelivered(), NOW).requests == []


def test_wherever_a_request_comes_between_others_the_task_ends_once():
    """Before, between and after everything, in any order: one terminal state, and nothing is sent after it."""
    for others, place in itertools.product(itertools.permutations(range(5), 3), range(4)):
        decision = accepted()
        events = [events_of(decision.requests[0])[number] for number in others]
        state = decision.state
        for event in events[:place]:
            state = decide(state, event, LATER).state
        expected = "failed" if state.ended else "cancelled"
        state, ends = decision.state, 0
        for event in (*events[:place], OURS, *events[place:], OURS):
            was_over = state.ended
            decision = decide(state, event, LATER)
            if was_over:
                assert (decision.changed, decision.requests) == (False, [])
            state = decision.state
            ends += state.ended and not was_over
        assert (ends, state.state) == (1, expected)
        assert not any(row.state == "sent" for row in state.steps.values())


def test_a_foreign_tenant_changes_nothing():
    state = accepted().state
    decision = decide(state, CancelRequested("other"), NOW)
    assert (decision.changed, decision.state) == (False, state)
    assert decide(fresh(), CancelRequested("other"), NOW).changed is False


def test_a_terminal_task_stays_as_it_is():
    expired = decide(accepted().state, DeadlinePassed(), "2026-01-02T00:00:00.000Z").state
    assert decide(expired, OURS, NOW).state == expired


def open_steps(state: TaskState) -> list[dict[str, str]]:
    found: list[dict[str, str]] = status_of(state)["open"]
    return found


def test_a_large_result_is_named_by_its_size():
    state = decide(accepted().state, OURS, NOW).state
    assert state.result is not None
    size = len(write(state.result))
    assert "result_bytes" not in status_of(state, size)
    status = status_of(state, size - 1)
    assert status["result_bytes"] == size
    assert "result" not in status


def test_the_status_names_what_is_out_and_since_when():
    decision = accepted()
    assert open_steps(decision.state) == [{"step": "first", "arm": "noop", "sent_at": NOW}]
    state = decide(decision.state, succeeded(decision.requests[0], {}), LATER).state
    assert [(one["step"], one["sent_at"]) for one in open_steps(state)] == [("left", LATER), ("right", LATER)]
    lost = decide(decision.state, MessageLost("first", 0, 1), LATER).state
    assert open_steps(lost)[0]["sent_at"] == LATER
    assert "open" not in status_of(decide(state, OURS, LATER).state)
    row = state.steps["left", 0]
    many = {(f"s{number}", 0): row._replace(step=f"s{number}") for number in range(300)}
    assert len(open_steps(replace(state, steps=many))) == 200


def test_what_a_recipe_wants_indexed_is_resolved_with_the_answer():
    state = run(accepted(), {"right": {"text": "long"}}).state
    assert state.memory is not None
    assert (state.memory["title"], state.memory["text"], state.memory["collection"]) == ("g", "long", "tasks")


def test_what_cannot_be_indexed_costs_the_task_nothing_and_is_said():
    decision = run(accepted(), {"right": {"text": 5}})
    assert (decision.state.state, decision.state.memory, decision.state.detail) == ("succeeded", None, None)
    assert str(decision.events[-1].detail).startswith("nothing was written to memory: text:")


PROPOSED = {
    "steps": {
        "look": {"arm": "noop", "input": {"of": {"$": "task.input.x"}}},
        "verdict": {"arm": "judge", "needs": ["look"], "input": {}},
    },
    "answer": {"$": "steps.look.output.name"},
    "repair": {"judge": "verdict", "redo": "look", "max": 1},
}
UNPLANNED = {"kind": None, "input": {"x": {"$": "task.goal"}}, "metadata": {"m": "1"}}


@pytest.mark.parametrize("kind", [None, "unheard-of"])
def test_what_no_recipe_fits_is_planned_by_the_planner_arm(kind):
    decision = accepted(model=True, **{**UNPLANNED, "kind": kind})
    (asked,) = decision.requests
    assert (asked.step, asked.arm) == ("plan", "planner")
    # What a producer wrote is never taken for a reference.
    expected = {"goal": "g", "input": UNPLANNED["input"], "metadata": {"m": "1"}, "arms": ["judge", "noop"]}
    assert asked.input == {**expected, "kinds": ["fork"], **({"kind": kind} if kind else {})}
    decision = decide(decision.state, succeeded(asked, {"plan": PROPOSED, "mode": "model"}), LATER)
    assert decision.plan_changed
    assert [(event.event, event.detail) for event in decision.events][1] == ("planned", "model")
    (look,) = decision.requests
    assert look.input == {"of": {"$": "task.goal"}}
    assert decision.state.plan is not None
    assert Plan.from_json(decision.state.plan.to_json()) == decision.state.plan
    assert [step.needs for step in decision.state.plan.steps] == [(), ("plan",), ("look",)]
    # The same event again sends the same again.
    again = decide(decision.state, succeeded(asked, {"plan": PROPOSED}), LATER)
    assert (again.changed, again.requests) == (False, [look])
    end = run(decision, {"look": {"name": "found"}, "verdict": {"verdict": "pass"}}).state
    assert end.result is not None
    assert (end.state, end.result.answer, end.result.mode) == ("succeeded", "found", "model")
    assert [step.step for step in end.result.steps] == ["plan", "look", "verdict"]


def test_a_models_plan_is_judged_and_repaired_like_a_recipes():
    decision = accepted(model=True, **UNPLANNED)
    decision = decide(decision.state, succeeded(decision.requests[0], {"plan": PROPOSED}), LATER)
    state = run(decision, {"verdict": {"verdict": "fail", "reasons": ["no"]}}).state
    assert (state.state, state.reason, state.round) == ("failed", "judged", 1)
    assert state.result is not None
    assert state.result.mode == "deterministic"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({}, "no plan"),
        ({"plan": None}, "plan"),
        ({"plan": {**PROPOSED, "steps": {"plan": PROPOSED["steps"]["look"]}}}, "planner's own"),  # type: ignore[index]
        ({"plan": {**PROPOSED, "answer": {"$": "steps.gone.output"}}}, "refers to step gone"),
    ],
)
def test_an_invalid_plan_fails_the_task_with_the_reason(output, said):
    decision = accepted(model=True, **UNPLANNED)
    decision = decide(decision.state, succeeded(decision.requests[0], output), LATER)
    assert (decision.state.state, decision.state.reason, decision.requests) == ("failed", "plan_invalid", [])
    assert said in str(decision.state.detail)


def test_a_planner_without_a_model_says_so_and_any_other_failure_is_the_steps():
    decision = accepted(model=True, **UNPLANNED)
    (asked,) = decision.requests
    rejected = decide(decision.state, failed(asked, "needs_model"), LATER).state
    assert (rejected.state, rejected.reason) == ("rejected", "needs_model")
    other = decide(decision.state, failed(asked), LATER).state
    assert (other.state, other.reason) == ("failed", "step_failed")


def test_without_a_model_or_a_planner_nothing_is_planned():
    for planning in (Planning(BOOK, ARMS), Planning(BOOK, ARMS - {"planner"}, model=True)):
        for kind, reason in ((None, "needs_model"), ("unheard-of", "unknown_kind")):
            state = decide(fresh(kind=kind), Accepted(planning), NOW).state
            assert (state.state, state.reason) == ("rejected", reason)
        assert planning.deadline_s(None) is None
    assert Planning(BOOK, ARMS, model=True).deadline_s("unheard-of") == 3600
    assert Planning(BOOK, ARMS, model=True).deadline_s("fork") == 60
