"""An expression of a plan ends quickly and with a RecipeError, whatever it and its data contain."""

import time

import pytest

from octollm.errors import RecipeError
from octollm.plans.expression import MAX_TEMPLATE_WORK, MAX_WORK, evaluate
from octollm.plans.template import references, render, sees_all

_NUMBERS = ["inf", "-inf", "nan", "1e400", "9" * 6000]


@pytest.mark.parametrize("value", _NUMBERS)
@pytest.mark.parametrize("function", ["ceil", "floor"])
def test_numbers_that_have_no_integer_are_refused_with_the_cause(function, value):
    with pytest.raises(RecipeError, match=r"cannot be evaluated: (OverflowError|ValueError)"):
        render({"of": {"$": f"{function}(to_number(x))"}}, {"x": value})


@pytest.mark.parametrize(
    ("expression", "data"),
    [
        ("x|" + "|".join(["[@,@]"] * 40), 1),
        ("x|" + "|".join(["{a: @, b: @}"] * 40), 1),
        ("x|" + "|".join(["join('', [@, @])"] * 60), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("x|" + "|".join(["[@,@][]"] * 60), [1]),
        ("x|" + "|".join(["[@,@]"] * 40) + " | to_string(@)", 1),
        ("x|" + "|".join(["[@,@]"] * 40) + " | @ == @", 1),
        ("x[*].[y] | " + "|".join(["[@,@][].[[@,@]]"] * 30), [{"y": 1}] * 10),
        ("[x, x][?contains(@, 'b')]", ["a" * 5_000_000] * 10),
        ("join(x.glue, x.parts)", {"glue": "g" * 300_000, "parts": [""] * 100_000}),
        ("[" + ", ".join(["x[::1]"] * 100) + "] | [0][0]", [1] * 100_000),
    ],
    ids=range(10),
)
def test_work_is_bounded(expression, data):
    began = time.process_time()
    with pytest.raises(RecipeError, match=f"more than {MAX_WORK} steps of work"):
        evaluate(expression, {"x": data})
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "expression", ["!" * 5000 + "x", "a" + "|a" * 3000, "[" * 2000 + "x" + "]" * 2000, "a" * 20_000]
)
def test_length_and_depth_are_bounded_before_anything_recurses(expression):
    for use in (lambda one: render(one, {}), lambda one: list(references(one)), sees_all):
        with pytest.raises(RecipeError):
            use({"$": expression})


def test_a_large_list_is_no_hostile_one():
    rows = [{"name": f"row {number}", "value": number} for number in range(50_000)]
    assert len(evaluate("rows[?value > `10`].name", {"rows": rows})) == 49_989


def test_all_references_of_a_template_share_one_budget():
    rows = [""] * 240_000
    assert render({"$": "length(join('', rows))"}, {"rows": rows}) == 0
    with pytest.raises(RecipeError, match=f"more than {MAX_TEMPLATE_WORK} steps of work"):
        render([{"$": "length(join('', rows))"}] * 200, {"rows": rows})
