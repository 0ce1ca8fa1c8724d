"""`decide` by itself: no database, no clock. Every order and repetition of events must lead to one terminal state."""

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest

from octollm.contracts import (
    StepDead,
    StepError,
    StepFailed,
    StepRequested,
    StepRetrying,
    TaskResult,
    read,
    write,
)
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import DeadlinePassed, Event, MessageLost, Redelivered
from octollm.orchestrator.state import Decision, StepEnded, TaskState
from tests.helpers.decisions import NOW, begun, succeeded
from tests.helpers.messages import about

DIAMOND = b"""
recipe: diamond
version: 1
description: one, two next to each other, one
input: {type: object}
deadline_s: 60
steps:
  first: {arm: noop, input: {}}
  left: {arm: noop, needs: [first], input: {of: {$: steps.first.output.name}}}
  right: {arm: noop, needs: [first], input: {}}
  last: {arm: noop, needs: [left, right], input: {all: {$: "[steps.left.output.name, steps.right.output.name]"}}}
answer: {$: steps.last.output.name}
"""
REPAIR = b"""
recipe: repaired
version: 1
description: make, polish, judge, and again
input: {type: object}
deadline_s: 60
steps:
  look: {arm: noop, input: {}}
  make: {arm: noop, needs: [look], input: {round: {$: round}, before: {$: steps.verdict.output.reasons}}}
  polish: {arm: noop, needs: [make], input: {made: {$: steps.make.output.name}}}
  verdict: {arm: judge, needs: [polish], input: {}}
answer: {made: {$: steps.polish.output.name}, round: {$: steps.polish.round}}
repair: {judge: verdict, redo: make, max: 2}
"""


WHOLE = b"""
recipe: whole
version: 1
description: a step whose input is what another one gave
input: {type: object}
deadline_s: 60
steps:
  first: {arm: noop, input: {}}
  last: {arm: noop, needs: [first], input: {$: steps.first.output.name}}
answer: {$: steps.last.output.name}
"""


def run(decision: Decision, *, fails: int = 0) -> tuple[TaskState, list[str]]:
    """Every step succeeds; the judge says "fail" the first `fails` times. The end, and the order of steps."""
    order, queue = [], list(decision.requests)
    while queue:
        step = queue.pop(0)
        order.append(f"{step.step}.{step.round}")
        output = None
        if step.arm == "judge":
            verdict = "fail" if fails > 0 else "pass"
            fails -= 1
            output = {"verdict": verdict, "reasons": ["too short"] if verdict == "fail" else []}
        decision = decide(decision.state, succeeded(step, output), NOW)
        queue += decision.requests
    return decision.state, order


def test_what_is_sent_again_says_so_and_what_is_sent_for_the_first_time_does_not():
    first = begun(DIAMOND)
    again = decide(first.state, Redelivered(), NOW)
    assert (first.repeats, again.repeats) == (False, True)
    assert again.requests == first.requests
    ended = decide(first.state, succeeded(first.requests[0]), NOW)
    assert (ended.repeats, decide(ended.state, succeeded(first.requests[0]), NOW).repeats) == (False, True)


@pytest.mark.parametrize("name", ["words", None, [1]])
def test_an_input_that_is_no_object_when_it_is_resolved_ends_the_task_and_says_so(name: Any):
    decision = begun(WHOLE)
    (first,) = decision.requests
    state = decide(decision.state, succeeded(first, {"name": name}), NOW).state
    assert (state.state, state.reason) == ("failed", "plan_invalid")
    assert state.detail is not None
    assert state.detail.startswith("step last: its input ")
    whole = decide(decision.state, succeeded(first, {"name": {"a": 1}}), NOW)
    assert [step.input for step in whole.requests] == [{"a": 1}]


def test_a_diamond_runs_in_order_and_joins():
    state, order = run(begun(DIAMOND))
    assert order == ["first.0", "left.0", "right.0", "last.0"]
    assert state.state == "succeeded"
    assert state.result is not None
    assert state.result.answer == "last 0"


@pytest.mark.parametrize("seed", range(30))
def test_any_order_with_repetitions_and_losses_ends_once_and_the_same(seed):
    chance = random.Random(seed)
    decision = begun(DIAMOND)
    pool: list[Any] = [Redelivered(), *(succeeded(step) for step in decision.requests)]
    state, ends, sent = decision.state, 0, [step.step for step in decision.requests]
    for _ in range(200):
        event = chance.choice(pool)
        if isinstance(event, StepEnded) and chance.random() < 0.2:
            continue  # lost for now; it is still pending and comes again
        was_over = state.ended
        decision = decide(state, event, NOW)
        assert decision.changed or decision.state == state
        state = decision.state
        ends += state.ended and not was_over
        pool += [succeeded(step) for step in decision.requests]
        sent += [step.step for step in decision.requests if decision.changed]
    assert ends == 1
    assert state.state == "succeeded"
    assert sorted(sent) == ["first", "last", "left", "right"]
    assert state.result is not None
    assert state.result.answer == "last 0"


def test_a_failed_verdict_opens_a_round_for_the_step_and_what_follows_it():
    state, order = run(begun(REPAIR), fails=1)
    assert order == ["look.0", "make.0", "polish.0", "verdict.0", "make.1", "polish.1", "verdict.1"]
    assert state.state == "succeeded"
    assert state.result is not None
    assert state.result.answer == {"made": "polish 1", "round": 1}


def test_a_repaired_step_sees_the_verdict_and_its_round():
    decision = begun(REPAIR)
    for output in (None, None, None, {"verdict": "fail", "reasons": ["too short"]}):
        (step,) = decision.requests
        decision = decide(decision.state, succeeded(step, output), NOW)
    (again,) = decision.requests
    assert (again.step, again.round, again.input) == ("make", 1, {"round": 1, "before": ["too short"]})


def test_repairs_end_at_their_cap():
    state, order = run(begun(REPAIR), fails=99)
    assert order.count("verdict.2") == 1
    assert "verdict.3" not in order
    assert (state.state, state.reason, state.detail) == ("failed", "judged", "too short")
    assert state.result is not None
    assert state.result.answer == {"made": "polish 2", "round": 2}


def parked(step: StepRequested, message: str = "check the key") -> StepEnded:
    error = StepError(code="needs_person_key", message=message)
    again: dict[str, Any] = {"next_attempt": step.attempt + 1, "failures": step.failures, "delay_ms": 60_000}
    return StepEnded(StepRetrying(outcome="retrying", error=error, **again, **about(step)))


def test_a_step_that_needs_a_person_says_so_and_costs_no_failure():
    decision = begun(DIAMOND)
    (first,) = decision.requests
    decision = decide(decision.state, parked(first), NOW)
    state = decision.state
    assert (state.state, state.detail) == ("running", "step first needs a person: check the key")
    assert (state.steps["first", 0].state, state.steps["first", 0].failures) == ("sent", 0)
    assert [one.error_class for one in decision.attempts] == ["needs_person"]
    assert [(one.event, one.detail) for one in decision.events] == [("step_retrying", state.detail)]
    again = first.model_copy(update={"attempt": 2})
    decision = decide(state, parked(again, "the key is still wrong"), NOW)
    assert decision.state.detail == "step first needs a person: the key is still wrong"
    done = decide(decision.state, succeeded(first.model_copy(update={"attempt": 3})), NOW)
    assert (done.state.state, done.state.detail) == ("running", None)
    error = StepError(code="needs_person_key", message="needs a person, who did not come: check the key")
    dead = StepDead(outcome="dead", reason="failures_exhausted", error=error, **about(again) | {"attempt": 3})
    ended = decide(decision.state, StepEnded(dead), NOW)
    assert (ended.state.state, ended.state.reason) == ("failed", "step_dead")
    assert ended.state.detail == "step first: needs a person, who did not come: check the key"
    assert [one.error_class for one in ended.attempts] == ["needs_person"]


def test_one_step_that_goes_on_does_not_hide_that_another_needs_a_person():
    decision = begun(DIAMOND)
    left, right = decide(decision.state, succeeded(decision.requests[0]), NOW).requests
    state = decide(decision.state, succeeded(decision.requests[0]), NOW).state
    state = decide(state, parked(left), NOW).state
    state = decide(state, succeeded(right), NOW).state
    assert state.detail == "step left needs a person: check the key"


def test_a_retry_raises_the_attempt_and_counts_the_failure():
    decision = begun(DIAMOND)
    (first,) = decision.requests
    retrying = StepRetrying(
        outcome="retrying",
        error=StepError(code="away", message="away"),
        next_attempt=2,
        failures=1,
        delay_ms=5,
        **about(first),
    )
    decision = decide(decision.state, StepEnded(retrying), NOW)
    row = decision.state.steps["first", 0]
    assert (row.attempt, row.failures, row.state) == (2, 1, "sent")
    assert decision.requests == []
    # The old attempt's late success is refused, the new one's is taken.
    assert not decide(decision.state, succeeded(first), NOW).changed
    second = first.model_copy(update={"attempt": 2})
    assert decide(decision.state, succeeded(second), NOW).changed


def test_nothing_leaves_a_terminal_state():
    decision = begun(DIAMOND)
    (first,) = decision.requests
    failed = StepFailed(outcome="failed", error=StepError(code="no", message="no"), **about(first))
    state = decide(decision.state, StepEnded(failed), NOW).state
    assert (state.state, state.reason) == ("failed", "step_failed")
    events: tuple[Event, ...] = (
        succeeded(first),
        Redelivered(),
        DeadlinePassed(),
        MessageLost("first", 0, 1),
        StepEnded(failed),
    )
    for event in itertools.chain(events, events):
        after = decide(state, event, "2027-01-01T00:00:00.000Z")
        assert not after.changed
        assert after.requests == []


def test_a_deadline_counts_only_when_it_has_passed():
    state = begun(DIAMOND).state
    assert not decide(state, DeadlinePassed(), NOW).changed
    late = decide(state, DeadlinePassed(), "2026-01-01T00:01:00.000Z").state
    assert (late.state, late.reason) == ("expired", "deadline")


def test_a_lost_message_is_sent_again_once_per_attempt():
    decision = begun(DIAMOND)
    lost = MessageLost("first", 0, 1)
    again = decide(decision.state, lost, NOW)
    assert [step.attempt for step in again.requests] == [2]
    assert decide(again.state, lost, NOW).requests == []
    assert decide(again.state, replace(lost, attempt=2), NOW).requests[0].attempt == 3


def test_versions_and_event_numbers_rise():
    decision = begun(DIAMOND)
    assert [event.seq for event in decision.events] == [1, 2, 3]
    after = decide(decision.state, succeeded(decision.requests[0]), NOW)
    assert after.events[0].seq == 4
    assert after.state.version == decision.state.version + 1


@pytest.mark.parametrize("value", [5, 5.5, True, "5", None, [1, 2.5], {"n": 1}])
def test_an_answer_keeps_its_type(value):
    decision = begun(DIAMOND)
    state, queue = decision.state, list(decision.requests)
    while queue:
        decision = decide(state, succeeded(queue.pop(0), {"name": value}), NOW)
        state, queue = decision.state, queue + decision.requests
    assert state.result is not None
    assert (state.result.answer, type(state.result.answer)) == (value, type(value))
    read_back = read(TaskResult, write(state.result))
    assert type(read_back.answer) is type(value)
