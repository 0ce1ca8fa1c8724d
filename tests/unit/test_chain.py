"""Where a linear chain of a plan ends, and that an arm makes the very message that the orchestrator would make."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octollm.contracts import InlineOutput, StepDone, StepRequested, StepSucceeded, read, write
from octollm.plans import chain, template
from octollm.plans.plan import Plan
from octollm.plans.recipes import parse_recipe
from tests.helpers.messages import about

ARMS = frozenset({"noop", "judge", "executor"})
HEAD = """
recipe: r
version: 1
description: d
input: {type: object, properties: {n: {}}}
deadline_s: 60
answer: null
steps:
"""
SEEN = {"task": {"goal": "g", "input": {"n": 1}}, "steps": {}, "round": 0}


def plan(steps: str, more: str = "") -> Plan:
    lines = "\n".join(f"  {line}" for line in steps.strip().splitlines())
    return parse_recipe(f"{HEAD}{lines}\n{more}".encode(), ARMS).plan


def requested(**changes: object) -> StepRequested:
    given = {
        "task": "l0-01jd0000000000000000000000", "run": 1, "step": "a", "round": 0, "attempt": 1, "tenant": "default",
        "arm": "noop", "priority": "normal", "failures": 0, "input": {}, "timeout_s": 10, **changes,
    }  # fmt: skip
    return StepRequested.model_validate(given)


LINE = """
a: {arm: noop, input: {}}
b: {arm: noop, needs: [a], input: {of: {$: steps.a.output.x}, n: {$: task.input.n}}}
c: {arm: noop, needs: [b], input: {of: {$: "[steps.a.output.x, steps.b.output.x]"}}}
"""


@pytest.mark.parametrize(
    ("steps", "names"),
    [
        (LINE, "bc"),
        # Before a join, before a fan-out, before the executor, after it, after a judge.
        (LINE + "z: {arm: noop, input: {}}\nd: {arm: noop, needs: [c, z], input: {}}", "bc"),
        (LINE + "d: {arm: noop, needs: [b], input: {}}", "b"),
        (LINE + "d: {arm: executor, needs: [c], input: {}}\ne: {arm: noop, needs: [d], input: {}}", "bc"),
        ("a: {arm: executor, input: {}}\nb: {arm: noop, needs: [a], input: {}}", ""),
        (LINE + "d: {arm: judge, needs: [c], input: {}}\ne: {arm: noop, needs: [d], input: {}}", "bcd"),
        # Before what looks at everything, or at an attempt that may not be the one that is committed.
        ("a: {arm: noop, input: {}}\nb: {arm: noop, needs: [a], input: {all: {$: '@'}}}", ""),
        ("a: {arm: noop, input: {}}\nb: {arm: noop, needs: [a], input: {all: {$: 'to_string(*)'}}}", ""),
        ("a: {arm: noop, input: {}}\nb: {arm: noop, needs: [a], input: {try: {$: steps.a.attempt}}}", ""),
    ],
)
def test_where_a_chain_ends(steps: str, names: str):
    assert "".join(step.name for step in chain.following(plan(steps), "a")) == names


def test_a_chain_ends_before_a_look_at_a_step_next_to_it_and_not_at_the_round_before():
    steps = """
    z: {arm: noop, input: {}}
    a: {arm: noop, input: {}}
    b: {arm: noop, needs: [a], input: {before: {$: steps.verdict.output.reasons}}}
    c: {arm: noop, needs: [b], input: {other: {$: steps.y.output}}}
    y: {arm: noop, needs: [z], input: {}}
    verdict: {arm: judge, needs: [c, y], input: {}}
    """
    steps = "\n".join(line.strip() for line in steps.strip().splitlines())
    # In a repaired plan a step may look at any other, whether that has ended by then or not.
    found = plan(steps + "\n", "repair: {judge: verdict, redo: a, max: 1}")
    assert [step.name for step in chain.following(found, "a")] == ["b"]


def test_each_message_is_the_one_the_orchestrator_would_send_with_digests_of_what_it_builds_on():
    steps = chain.following(plan(LINE), "a")
    first = requested(continuation=chain.continuation(steps, SEEN, {}, 1))
    second = chain.next_request(first, {"x": "one"})
    assert second is not None
    assert (second.step, second.attempt, second.input) == ("b", 1, {"of": "one", "n": 1})
    assert second.builds_on == {"a": chain.digest({"x": "one"})}
    third = chain.next_request(second, {"x": "two"})
    assert third is not None
    assert (third.step, third.input, third.continuation) == ("c", {"of": ["one", "two"]}, None)
    assert third.builds_on == {"a": chain.digest({"x": "one"}), "b": chain.digest({"x": "two"})}
    assert chain.next_request(third, {"x": "three"}) is None
    assert read(StepRequested, write(second)) == second


def test_a_message_carries_only_what_is_still_looked_at():
    steps = chain.following(plan(LINE), "a")
    rest = chain.continuation(steps, SEEN, {}, 1)
    assert rest is not None
    assert rest.seen == {"task": {"input": {"n": 1}}, "steps": {}, "round": 0}
    second = chain.next_request(requested(continuation=rest), {"x": "one"})
    assert second is not None
    assert second.continuation is not None
    assert second.continuation.seen == {
        "task": {},
        "steps": {"a": {"output": {"x": "one"}, "round": 0, "attempt": 1}},
        "round": 0,
    }


def test_what_is_too_large_or_too_deep_for_a_message_ends_the_chain():
    steps = chain.following(plan(LINE), "a")
    assert chain.continuation(steps, {**SEEN, "task": {"input": {"n": "x" * chain.LIMIT}}}, {}, 1) is None
    deep: object = 1
    for _ in range(62):
        deep = [deep]
    assert chain.continuation(steps, {**SEEN, "task": {"input": {"n": deep}}}, {}, 1) is None
    second = chain.next_request(
        requested(continuation=chain.continuation(steps, SEEN, {}, 1)), {"x": "x" * chain.LIMIT}
    )
    # It goes on its way itself, and what follows it is the orchestrator's to send.
    assert second is not None
    assert second.continuation is None


def test_what_cannot_be_resolved_is_left_to_the_orchestrator():
    broken = "a: {arm: noop, input: {}}\nb: {arm: noop, needs: [a], input: {n: {$: 'sum(steps.a.output.x)'}}}"
    rest = chain.continuation(chain.following(plan(broken), "a"), SEEN, {}, 1)
    assert chain.next_request(requested(continuation=rest), {"x": [1, 2]}) is not None
    assert chain.next_request(requested(continuation=rest), {"x": "text"}) is None
    whole = "a: {arm: noop, input: {}}\nb: {arm: noop, needs: [a], input: {$: steps.a.output.x}}"
    rest = chain.continuation(chain.following(plan(whole), "a"), SEEN, {}, 1)
    assert chain.next_request(requested(continuation=rest), {"x": [1]}) is None
    number = "a: {arm: noop, input: {}}\nb: {arm: noop, needs: [a], input: {n: {$: to_number(steps.a.output.x)}}}"
    rest = chain.continuation(chain.following(plan(number), "a"), SEEN, {}, 1)
    assert chain.next_request(requested(continuation=rest), {"x": "9"}) is not None
    assert chain.next_request(requested(continuation=rest), {"x": "9" * 30}) is None


def test_a_rest_of_another_shape_is_left_alone():
    rest = {"attempt": 1, "steps": [{"step": "b", "arm": "noop", "timeout_s": 1, "input": {}}], "digests": {}}
    wrong: tuple[dict[str, Any], ...] = ({}, {"steps": []})
    for seen in wrong:
        assert chain.next_request(requested(continuation={**rest, "seen": seen}), {}) is None


def test_what_a_producer_wrote_is_no_reference():
    rest = chain.continuation(
        chain.following(plan(LINE), "a"), {**SEEN, "task": {"input": {"n": {"$": "task"}}}}, {}, 1
    )
    second = chain.next_request(requested(continuation=rest), {"x": {"$": "steps"}})
    assert second is not None
    assert second.input == {"of": {"$": "steps"}, "n": {"$": "task"}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(min_codepoint=33, max_codepoint=126)), inner),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(min_codepoint=33, max_codepoint=126)), JSON))
def test_an_output_has_one_digest_on_both_sides_of_the_bus(output: dict[str, object]):
    reported = StepSucceeded(outcome="succeeded", output=InlineOutput(at="inline", value=output), **about(requested()))
    done = read(StepDone, write(StepDone(reported))).root
    assert isinstance(done, StepSucceeded)
    assert isinstance(done.output, InlineOutput)
    assert chain.digest(done.output.value) == chain.digest(orjson.loads(orjson.dumps(output)))
    turned = dict(reversed(list(output.items())))
    assert chain.digest(turned) == chain.digest(output)


@pytest.mark.parametrize("expression", ["@", "*", "@.task", "to_string(@)", "[task.goal, @]", "*.x | [0]"])
def test_expressions_that_look_at_the_whole_are_known(expression: str):
    assert template.sees_all({"x": [{"$": expression}]})


@pytest.mark.parametrize("expression", ["task.input.x", "steps.a.output.*", "steps.a.output.l[?x > `1`].y", "round"])
def test_expressions_that_look_at_a_part_are_known_too(expression: str):
    assert not template.sees_all({"x": {"$": expression}})
