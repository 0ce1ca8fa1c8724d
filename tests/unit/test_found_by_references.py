"""References that lead to something no message can carry: the task ends and says why, whatever it was."""

import pytest

from octollm.orchestrator.decide import decide
from octollm.plans.recipes import parse_recipe
from tests.helpers.decisions import ARMS, NOW, begun, succeeded

RECIPE = """
recipe: whole
version: 1
description: the second step's input is all that the first one gave
input: {{type: object}}
deadline_s: 60
steps:
  first: {{arm: noop, input: {{}}}}
  second: {{arm: noop, needs: [first], input: {{$: {expression}}}}}
answer: {{$: {answer}}}
"""


def recipe(expression="steps.first.output.all", answer="steps.second.output"):
    return RECIPE.format(expression=f"'{expression}'", answer=f"'{answer}'").encode()


def after_first(output, **parts):
    decision = begun(recipe(**parts))
    (first,) = decision.requests
    return decide(decision.state, succeeded(first, output), NOW)


@pytest.mark.parametrize(
    ("output", "finds"),
    [
        ({"none": 1}, "nothing"),
        ({"all": "text"}, "a string"),
        ({"all": 1.5}, "a number"),
        ({"all": True}, "a boolean"),
        ({"all": [{}]}, "an array"),
    ],
)
def test_an_input_that_comes_to_no_object_ends_the_task(output, finds):
    decision = after_first(output)
    assert decision.requests == []
    assert (decision.state.state, decision.state.reason) == ("failed", "plan_invalid")
    assert decision.state.detail == (
        f"step second: its input is a single reference, which must find an object and found {finds}"
    )


def test_an_input_that_comes_to_an_object_is_that_object():
    (second,) = after_first({"all": {"n": 1}}).requests
    assert second.input == {"n": 1}


HUGE = "{n: to_number(steps.first.output.text)}"


def test_an_input_that_is_no_json_ends_the_task():
    decision = after_first({"text": "9" * 30}, expression=HUGE)
    assert (decision.state.state, decision.state.reason) == ("failed", "plan_invalid")
    assert decision.state.detail is not None
    assert decision.state.detail.startswith("step second: the value that its references give cannot be stored as JSON")
    assert after_first({"text": "9"}, expression=HUGE).requests[0].input == {"n": 9}


def test_an_answer_that_is_no_json_ends_the_task():
    decision = after_first({"all": {}, "text": "9" * 30}, answer=HUGE)
    (second,) = decision.requests
    ended = decide(decision.state, succeeded(second), NOW).state
    assert (ended.state, ended.reason) == ("failed", "plan_invalid")
    assert ended.result is not None
    assert ended.result.answer is None


def test_the_recipe_of_these_tests_is_one():
    assert parse_recipe(recipe(), ARMS).plan.by_name["second"].input == {"$": "steps.first.output.all"}
