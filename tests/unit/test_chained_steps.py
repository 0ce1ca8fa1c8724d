"""Direct hand-off in `decide`: ends in any order, of any lineage. What is committed is made from what is committed."""

import itertools
from typing import Any

from octollm.contracts import Chained, InlineOutput, StepDead, StepError, StepRequested, StepRetrying, StepSucceeded
from octollm.orchestrator import direct
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import Accepted, DeadlinePassed, MessageLost, Redelivered
from octollm.orchestrator.messages import status_of
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Decision, StepEnded, TaskState
from octollm.plans import chain
from octollm.plans.recipes import RecipeBook, parse_recipe
from tests.helpers.messages import about

NOW = "2026-01-01T00:00:00.000Z"
LINE = b"""
recipe: line
version: 1
description: three steps, one after the other
input: {type: object}
deadline_s: 60
steps:
  a: {arm: noop, input: {}}
  b: {arm: noop, needs: [a], input: {of: {$: steps.a.output.x}}}
  c: {arm: noop, needs: [b], input: {of: {$: steps.b.output.x}}}
answer: {$: steps.c.output.x}
"""


def begun() -> tuple[TaskState, StepRequested]:
    loaded = parse_recipe(LINE, frozenset({"noop"}))
    state = TaskState(
        task="l0-01jd0000000000000000000000", tenant="default", submission={"goal": "g", "kind": "line", "input": {}},
        source="http", idempotency_key="k", fingerprint="0" * 64, redactions={}, priority="normal", received_at=NOW,
        traceparent="", deadline_at="2026-01-01T00:01:00.000Z",
    )  # fmt: skip
    decision = decide(state, Accepted(Planning(RecipeBook({"line": loaded}))), NOW)
    (first,) = decision.requests
    return decision.state, direct.with_continuation(decision.state, first)


def work(step: StepRequested, x: str) -> tuple[StepEnded, StepRequested | None]:
    """As an arm does it: the end it tells, and the message it sends on."""
    value = {"x": x}
    follows = chain.next_request(step, value)
    reported = None if follows is None else Chained(step=follows.step, attempt=follows.attempt)
    output = InlineOutput(at="inline", value=value)
    done = StepSucceeded(
        outcome="succeeded", output=output, chained=reported, builds_on=step.builds_on, **about(step)
    )  # fmt: skip
    return StepEnded(done, value), follows


def line(first: StepRequested, mark: str = "") -> list[StepEnded]:
    """All three ends of a chain."""
    ends, step = [], first
    for name in "abc":
        end, follows = work(step, f"{name}{mark}")
        ends.append(end)
        if follows is None:
            break
        step = follows
    return ends


def apply(state: TaskState, *events: Any) -> Decision:
    """One after the other; the last decision, with all sends and attempts."""
    sends, attempts, reported = [], [], []
    decision = Decision(state)
    for event in events:
        decision = decide(decision.state, event, NOW)
        sends += decision.requests
        attempts += decision.attempts
        reported += decision.events
    decision.requests, decision.attempts, decision.events = sends, attempts, reported
    return decision


def states(decision: Decision) -> dict[str, tuple[str, int]]:
    return {row.step: (row.state, row.attempt) for row in decision.state.steps.values()}


def test_ends_in_any_order_lead_to_the_same_rows_and_nothing_is_sent_by_the_orchestrator():
    state, first = begun()
    for order in itertools.permutations(line(first)):
        decision = apply(state, *order)
        assert decision.state.state == "succeeded"
        assert decision.requests == []
        assert states(decision) == dict.fromkeys("abc", ("succeeded", 1))
        assert sorted(one.outcome for one in decision.attempts) == ["succeeded"] * 3
        kinds = [reported.event for reported in decision.events]
        assert kinds == ["step_succeeded", "step_sent"] * 2 + ["step_succeeded", "finished"]
        assert decision.state.result is not None
        assert decision.state.result.answer == "c"


def test_the_same_events_are_reported_without_hand_off():
    state, first = begun()
    plain = first.model_copy(update={"continuation": None})
    seen: list[str] = []
    step = plain
    for name in "abc":
        decision = decide(state, work(step, name)[0], NOW)
        state, seen = decision.state, seen + [reported.event for reported in decision.events]
        step = decision.requests[0] if decision.requests else step
    assert seen == ["step_succeeded", "step_sent"] * 2 + ["step_succeeded", "finished"]


def test_an_end_that_comes_twice_or_too_early_twice_changes_nothing_and_sends_nothing():
    state, first = begun()
    a, b, c = line(first)
    decision = apply(state, b, b, c, b, a, a, b, c, Redelivered())
    assert decision.requests == []
    assert states(decision) == dict.fromkeys("abc", ("succeeded", 1))
    assert len(decision.attempts) == 3
    kept = apply(state, b)
    assert not decide(kept.state, b, NOW).changed


def test_a_kept_result_is_not_outstanding_not_reconciled_and_not_seen_by_others():
    state, first = begun()
    _, b, _ = line(first)
    kept = apply(state, b)
    assert [one["step"] for one in _open(kept.state)] == ["a"]
    assert kept.state.steps["b", 0].output is None
    assert apply(kept.state, MessageLost("b", 0, 1)).requests == []


def _open(state: TaskState) -> list[dict[str, str]]:
    found: list[dict[str, str]] = status_of(state)["open"]
    return found


def test_a_result_made_from_another_output_is_dropped_and_its_step_sent_again():
    state, first = begun()
    ours, others = line(first, " ours"), line(first, " others")
    for early in ([others[1]], [others[1], others[2]], []):
        decision = apply(state, *early, ours[0], *([] if early else [others[1]]))
        (again,) = decision.requests
        assert (again.step, again.attempt, again.input) == ("b", 2, {"of": "a ours"})
        assert again.builds_on is None
        assert [(one.step, one.outcome) for one in decision.attempts] == [("a", "succeeded"), ("b", "dropped")]
        # Neither the dropped one nor the other of that attempt comes back.
        late = apply(decision.state, others[1], ours[1])
        assert states(late)["b"] == ("sent", 2)
        # Who asks for the event again gets the message again.
        asked = ours[0] if early else others[1]
        assert [one.attempt for one in decide(decision.state, asked, NOW).requests] == [2]
        end, _ = work(direct.with_continuation(decision.state, again), "b new")
        assert states(apply(decision.state, end))["b"] == ("succeeded", 2)


def test_of_many_that_were_made_from_other_outputs_the_step_is_sent_again_once():
    state, first = begun()
    others = [line(first, f" other {number}")[1] for number in range(3)]
    decision = apply(state, *others, work(first, "ours")[0])
    assert [(one.step, one.attempt) for one in decision.requests] == [("b", 2)]


def test_a_lost_step_that_is_sent_again_chains_with_a_higher_attempt():
    state, first = begun()
    lost = line(first, " lost")
    decision = decide(state, MessageLost("a", 0, 1), NOW)
    again = direct.with_continuation(decision.state, decision.requests[0])
    new = line(again, " new")
    # The old lineage is met in every order; only the new one is committed.
    for order in itertools.permutations([*new, lost[1]]):
        end = apply(decision.state, *order)
        assert (end.state.state, end.requests) == ("succeeded", [])
        assert states(end) == dict.fromkeys("abc", ("succeeded", 2))
        assert end.state.steps["b", 0].output == {"x": "b new"}


def test_a_result_that_came_early_is_used_when_the_lost_step_gives_the_same_again():
    state, first = begun()
    _, b, c = line(first)
    decision = apply(state, b, c, MessageLost("a", 0, 1))
    (again,) = decision.requests
    # Its result may be right: nothing is chained that would do it again.
    assert direct.with_continuation(decision.state, again).continuation is None
    end = apply(decision.state, work(again, "a")[0])
    assert (end.state.state, end.requests) == ("succeeded", [])
    assert states(end) == {"a": ("succeeded", 2), "b": ("succeeded", 1), "c": ("succeeded", 1)}


def test_retries_and_the_end_of_the_next_try_before_their_turn_are_history_in_order():
    state, first = begun()
    a, follows = work(first, "a")
    assert follows is not None
    error = StepError(code="busy", message="later")
    fields: dict[str, Any] = {"next_attempt": 2, "failures": 1, "delay_ms": 1, "builds_on": follows.builds_on}
    failed = StepEnded(StepRetrying(outcome="retrying", error=error, **fields, **about(follows)))
    b, _ = work(follows.model_copy(update={"attempt": 2, "failures": 1}), "b")
    decision = apply(state, b, failed, a)
    assert [(one.attempt, one.outcome) for one in decision.attempts if one.step == "b"] == [
        (1, "retrying"),
        (2, "succeeded"),
    ]
    assert states(decision)["b"] == ("succeeded", 2)
    assert decision.requests == []


def test_a_next_try_of_what_is_dropped_is_void():
    state, first = begun()
    ours, _ = work(first, "ours")
    _, follows = work(first, "others")
    assert follows is not None
    error = StepError(code="busy", message="later")
    fields: dict[str, Any] = {"next_attempt": 2, "failures": 1, "delay_ms": 1, "builds_on": follows.builds_on}
    failed = StepEnded(StepRetrying(outcome="retrying", error=error, **fields, **about(follows)))
    decision = apply(state, ours, failed)
    assert [(one.step, one.attempt) for one in decision.requests] == [("b", 3)]


def test_a_dead_letter_in_the_middle_ends_the_task_once_its_turn_has_come():
    state, first = begun()
    a, follows = work(first, "a")
    assert follows is not None
    error = StepError(code="deliveries_exhausted", message="killed them all")
    dead = StepEnded(StepDead(outcome="dead", reason="deliveries_exhausted", error=error, **about(follows)))
    for order in ((dead, a), (a, dead)):
        decision = apply(state, *order)
        assert (decision.state.state, decision.state.reason) == ("failed", "step_dead")
        assert decision.state.steps["b", 0].state == "dead"


def test_ends_of_a_task_that_has_run_out_of_time_change_nothing():
    state, first = begun()
    a, b, c = line(first)
    decision = decide(apply(state, b).state, DeadlinePassed(), "2026-01-01T00:02:00.000Z")
    assert decision.state.state == "expired"
    assert {row.step: (row.state, row.early_results) for row in decision.state.steps.values()} == {
        "a": ("cancelled", ()),
        "b": ("cancelled", ()),
    }
    assert not apply(decision.state, a, b, c).changed


def test_a_chained_step_that_is_lost_is_sent_by_the_orchestrator():
    state, first = begun()
    decision = apply(state, line(first)[0], MessageLost("b", 0, 1))
    (again,) = decision.requests
    assert (again.step, again.attempt, again.input) == ("b", 2, {"of": "a"})
    rest = direct.with_continuation(decision.state, again).continuation
    assert rest is not None
    assert (rest.attempt, [one.step for one in rest.steps]) == (2, ["c"])
