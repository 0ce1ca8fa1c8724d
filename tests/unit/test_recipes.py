"""Recipes and references: what is refused at start, with a message that names the gap, and what an expression finds."""

from pathlib import Path
from typing import Any

import jmespath
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from octollm.errors import InvalidInputError, RecipeError
from octollm.plans import memory_facts, template
from octollm.plans.plan import Plan
from octollm.plans.proposal import read_proposal
from octollm.plans.recipes import load_recipes, parse_recipe
from octollm.resources import checkout

ARMS = frozenset({"guardian", "judge", "executor", "coder", "planner", "retriever"})
GOOD = """
recipe: good
version: 1
description: fine
deadline_s: 60
input: {type: object, properties: {text: {type: string}}, required: [text], additionalProperties: false}
steps:
  a: {arm: guardian, input: {value: {$: task.input.text}}}
  b: {arm: judge, needs: [a], input: {of: {$: steps.a.output}}}
answer: {$: steps.b.output.verdict}
"""


def changed(path: str, value: object) -> bytes:
    """GOOD with one thing changed; None takes it away."""
    recipe = yaml.safe_load(GOOD)
    place = recipe
    *parents, last = path.split("/")
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(recipe).encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("colour", "red", "colour"),
        ("version", None, "version"),
        ("version", "1", "version"),
        ("deadline_s", 0, "deadline_s"),
        ("recipe", "Not A Name", "recipe"),
        ("input", {"type": "nothing"}, "input is not a JSON Schema"),
        ("steps", {}, "steps"),
        ("steps/a/arm", "tentacle", "arm tentacle"),
        ("steps/a/needs", ["c"], "needs c"),
        ("steps/a/needs", ["b"], "cycle"),
        ("steps/a/input", {"v": {"$": "task.input.txet"}}, "no property txet"),
        ("steps/a/input", {"v": {"$": "steps.b.output"}}, "add it to needs"),
        ("steps/a/input", {"v": {"$": "steps.z.output"}}, "refers to step z"),
        ("steps/a/input", {"v": {"$": "tasks.input"}}, "tasks.input does not exist"),
        ("steps/a/input", {"v": [{"$": "length("}]}, "not a JMESPath expression"),
        ("steps/b/input", {"v": {"$": "steps.a.result"}}, "steps.a.result does not exist"),
        ("answer", {"deep": [{"$": "steps.c.output"}]}, "answer: refers to step c"),
        ("repair", {"judge": "a", "redo": "a", "max": 1}, "repair.judge"),
        ("repair", {"judge": "b", "redo": "z", "max": 1}, "repair.redo"),
        ("repair", {"judge": "b", "redo": "a", "max": 6}, "repair.max"),
        ("memory", {"title": "t"}, "memory.text"),
        ("memory", {"title": "t", "text": 5}, "memory.text"),
        ("memory", {"title": "t", "text": "x", "collection": "Not A Name"}, "memory.collection"),
        ("memory", {"title": "t", "text": "x", "entities": [{"type": "file"}]}, "memory.entities.0"),
        ("memory", {"title": "t", "text": {"$": "steps.z.output"}}, "memory: refers to step z"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(path, value, message):
    with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
        parse_recipe(changed(path, value), ARMS)


def test_a_judge_that_does_not_see_what_is_redone_cannot_repair():
    recipe = changed("steps/b/needs", []).replace(b"steps.a.output", b"task.input")
    with pytest.raises(RecipeError, match="does not depend on"):
        parse_recipe(recipe + b"repair: {judge: b, redo: a, max: 1}\n", ARMS)


def test_the_recipes_that_ship_are_right():
    root = checkout()
    assert root is not None
    kinds = ("ask", "code", "github.issues", "ingest", "note", "patch", "report", "write")
    assert load_recipes(root / "recipes", ARMS).kinds == kinds


def test_a_folder_error_names_the_file(tmp_path: Path):
    (tmp_path / "one.yaml").write_text(GOOD)
    (tmp_path / "two.yaml").write_text(GOOD)
    with pytest.raises(RecipeError, match=r"two\.yaml: the folder has another recipe good"):
        load_recipes(tmp_path, ARMS)
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipes(tmp_path / "missing", ARMS)


def test_input_is_checked_by_the_recipes_schema_and_its_value_is_not_repeated():
    recipe = parse_recipe(GOOD.encode(), ARMS)
    recipe.check_input({"text": "x"})
    for wrong in ({}, {"text": 5}, {"text": "x", "secret-value": "secret-value"}):
        with pytest.raises(InvalidInputError) as caught:
            recipe.check_input(wrong)
        assert "secret-value" not in str(caught.value)


def test_a_plan_survives_its_stored_form():
    plan = parse_recipe(GOOD.encode() + b"repair: {judge: b, redo: a, max: 2}\n", ARMS).plan
    assert Plan.from_json(plan.to_json()) == plan


def test_references_are_found_and_replaced():
    context = {"task": {"input": {"n": 3, "gone": None}}, "steps": {"a": {"output": {"list": [1, 2]}}}}
    value = {
        "n": {"$": "task.input.n"},
        "sum": {"$": "sum(steps.a.output.list)"},
        "gone": {"$": "task.input.gone"},
        "kept": None,
        "list": [{"$": "task.input.gone"}, {"$": "steps.a.output.list[0]"}],
        "two keys": {"$": "task.input.n", "b": 1},
    }
    assert template.resolve(value, context) == {
        "n": 3,
        "sum": 3,
        "kept": None,
        "list": [None, 1],
        "two keys": {"$": "task.input.n", "b": 1},
    }
    found = set(template.references(value))
    assert {("task", "input", "n"), ("steps", "a", "output", "list"), ("task", "input", "gone")} <= found
    with pytest.raises(RecipeError, match="cannot be evaluated"):
        template.resolve({"$": "sum(task.input)"}, context)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", 'a"b']), inner, max_size=3),
    max_leaves=12,
)


LINKS = st.lists(st.sampled_from([".a", ".b", '."a\\"b"', "[0]", "[1]", "[-1]", "[-9]"]), max_size=4).map("".join)


@given(st.dictionaries(st.sampled_from(["a", "b"]), JSON), LINKS)
def test_a_chain_of_names_and_indexes_finds_what_jmespath_finds(context: dict[str, Any], links: str):
    expression = f"a{links}"
    assert template.resolve([{"$": expression}], context) == [jmespath.search(expression, context)]


@pytest.mark.parametrize(
    ("expression", "paths"),
    [
        ("steps.a.output.list[0].x", {("steps", "a", "output", "list")}),
        ("steps.a.output.list[].{n: name}", {("steps", "a", "output", "list")}),
        ("steps.a.output.list[?x == '1'].name | [0]", {("steps", "a", "output", "list")}),
        ("join(',', steps.a.output.l[*].name)", {("steps", "a", "output", "l")}),
        ("task.input.a || steps.b.output", {("task", "input", "a"), ("steps", "b", "output")}),
        ("{a: steps.a.round, b: [round]}", {("steps", "a", "round"), ("round",)}),
        ("max_by(steps.a.output.list, &v)", {("steps", "a", "output", "list")}),
        ("map(&[n, steps], steps.a.output.list)", {("steps", "a", "output", "list")}),
        ("max_by(steps.a.output.list, &v).n || round", {("steps", "a", "output", "list"), ("round",)}),
    ],
)
def test_the_paths_of_an_expression_are_its_beginnings(expression, paths):
    assert set(template.references({"$": expression})) == paths


ROWS = [{"n": "a", "v": 3, "in": {"v": 1}, "l": [1, 2]}, {"n": "b", "v": 1, "in": {"v": 7}, "l": [3]}]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("max_by(steps.a.output.list, &v).n", "a"),
        ("min_by(steps.a.output.list, &in.v).n", "a"),
        ("sort_by(steps.a.output.list, &v)[*].n", ["b", "a"]),
        ("sort_by(steps.a.output.list, &n)[::-1].n", ["b", "a"]),
        ("map(&v, steps.a.output.list)", [3, 1]),
        ("map(&l[0], steps.a.output.list)", [1, 3]),
        ("map(&{x: v, y: in.v}, steps.a.output.list)", [{"x": 3, "y": 1}, {"x": 1, "y": 7}]),
        ("map(&[n, v], steps.a.output.list)", [["a", 3], ["b", 1]]),
        ("map(&@, steps.a.output.list[*].v)", [3, 1]),
        ("map(&length(l), steps.a.output.list)", [2, 1]),
        ("max_by(steps.a.output.list, &to_number(in.v)).n", "b"),
        ("map(&max_by(@, &v).n, [steps.a.output.list])", ["a"]),
        ("steps.a.output.list | max_by(@, &v) | n", "a"),
        ("steps.a.output | max_by(list, &v).n", "a"),
        ("sum(map(&(in.v || v), steps.a.output.list))", 8),
        ("max_by(steps.a.output.list[?v > `1`], &v).n", "a"),
        ("not_null(task.input.text, max_by(steps.a.output.list, &v).n)", "hello"),
    ],
)
def test_an_expression_reference_sees_the_elements_and_not_the_task(expression, found):
    value = {"v": {"$": expression}}
    parse_recipe(changed("steps/b/input", value), ARMS)
    context = {"task": {"input": {"text": "hello"}}, "steps": {"a": {"output": {"list": ROWS}}}}
    assert template.resolve(value, context) == {"v": found}
    assert not template.sees_all(value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("&v", "& may only begin"),
        ("[&v]", "& may only begin"),
        ("{v: &v}", "& may only begin"),
        ("task.input || &v", "& may only begin"),
        ("map(&(&v), steps.a.output.list)", "& may only begin"),
        ("max_by(steps.c.output.list, &v)", "refers to step c"),
        ("max_by(list, &v)", "list does not exist"),
        ("map(&v, steps.a.result)", "steps.a.result does not exist"),
    ],
)
def test_an_expression_reference_hides_nothing_that_is_wrong(expression, message):
    with pytest.raises(RecipeError, match=message):
        parse_recipe(changed("steps/b/input", {"v": {"$": expression}}), ARMS)


REMEMBER = b"""
memory:
  title: {$: task.goal}
  text: {$: steps.a.output.text}
  attributes: {colour: {$: task.input.text}}
  entities: [{type: file, name: {$: task.input.text}}]
  relationships: [{from: {type: file, name: a}, type: holds, to: {type: word, name: {$: task.input.text}}}]
"""


def test_what_is_to_be_indexed_is_stored_with_its_defaults_and_checked_when_it_is_known():
    plan = parse_recipe(GOOD.encode() + REMEMBER, ARMS).plan
    assert Plan.from_json(plan.to_json()) == plan
    context: Any = {"task": {"goal": "g", "input": {"text": "red"}}, "steps": {"a": {"output": {"text": "long"}}}}
    found = memory_facts.check_facts(template.resolve(plan.memory, context))
    assert (found["title"], found["text"], found["collection"]) == ("g", "long", "tasks")
    assert found["relationships"] == [
        {"from": {"type": "file", "name": "a"}, "type": "holds", "to": {"type": "word", "name": "red"}}
    ]
    for wrong in ({}, {"text": 5}, {"text": ["a"]}, {"text": ""}):
        context["steps"]["a"]["output"] = wrong
        with pytest.raises(InvalidInputError, match="text"):
            memory_facts.check_facts(template.resolve(plan.memory, context))


PROPOSED: dict[str, Any] = {
    "steps": {"look": {"arm": "guardian", "input": {"of": {"$": "task.input.anything"}}}},
    "answer": {"$": "steps.look.output"},
}


def test_a_models_plan_is_judged_by_the_same_rules():
    plan = read_proposal(PROPOSED, ARMS | {"planner"})
    assert [step.name for step in plan.steps] == ["look"]
    for path, value, message in (
        ("steps", {"plan": PROPOSED["steps"]["look"]}, "planner's own"),
        ("steps", {"look": {"arm": "planner", "input": {}}}, "arm planner"),
        ("steps", {"look": {"arm": "shell", "input": {}}}, "arm shell"),
        ("steps", {"look": {"arm": "guardian", "input": {"of": {"$": "secrets.key"}}}}, "does not exist"),
        ("answer", {"$": "steps.other.output"}, "refers to step other"),
        ("memory", {"title": "t", "text": "x"}, "memory"),
        ("steps", [], "steps"),
    ):
        with pytest.raises(RecipeError, match=message):
            read_proposal({**PROPOSED, path: value}, ARMS | {"planner"})
    nothings: tuple[Any, ...] = (None, [], "plan", {}, {"answer": 1})
    for nothing in nothings:
        with pytest.raises(RecipeError):
            read_proposal(nothing, ARMS)
