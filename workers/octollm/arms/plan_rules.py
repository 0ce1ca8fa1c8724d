"""The rules for plans that models make; faults are sentences that a model can act on. Pure.

The orchestrator validates a plan completely when it adopts it. These rules need no access to its recipes.
"""

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from octollm.contracts.json_schema import validator
from octollm.errors import RecipeError
from octollm.plans.expression import compiled

MAX_STEPS = 20
_NAME = "^[a-z][a-z0-9_]{0,62}$"
_STEP_IN_EXPRESSION = re.compile(r"\bsteps\.([A-Za-z_]\w*)")
_REFERENCE = {
    "type": "object",
    "required": ["$"],
    "additionalProperties": False,
    "properties": {"$": {"type": "string", "minLength": 1}},
}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["steps", "answer"],
    "additionalProperties": False,
    "properties": {
        "steps": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": MAX_STEPS,
            "propertyNames": {"pattern": _NAME},
            "additionalProperties": {
                "type": "object",
                "required": ["arm", "input"],
                "additionalProperties": False,
                "properties": {
                    "arm": {"type": "string"},
                    "needs": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
                    "timeout_s": {"type": "integer", "minimum": 1, "maximum": 300},
                    "input": {"type": "object"},
                    "verdict": {"enum": ["decides", "informs"]},
                },
            },
        },
        "answer": {"description": "template of the task's answer"},
        "repair": {
            "type": "object",
            "required": ["judge", "redo", "max"],
            "additionalProperties": False,
            "properties": {
                "judge": {"type": "string"},
                "redo": {"type": "string"},
                "max": {"type": "integer", "minimum": 1, "maximum": 5},
            },
        },
    },
}
"""The form of a recipe file's `steps`, `answer` and `repair`, as JSON."""


def faults(plan: Mapping[str, Any], inputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each fault of `plan`, which is valid by SCHEMA.

    `inputs`: the JSON Schema of the input of every arm that the plan may use, by the arm's name.
    """
    steps: Mapping[str, Any] = plan["steps"]
    found = [*_wiring(steps, inputs)]
    if found:
        return found
    ancestors = {name: _ancestors(steps, name) for name in steps}
    repair = plan.get("repair")
    if repair is not None:
        found += _repair(steps, ancestors, repair)
    redone = {name for name in steps if repair and repair["redo"] in ancestors[name] | {name}}
    for name, step in steps.items():
        # In a repair round, a step may refer to the results of the previous round.
        known = set(steps) if name in redone else ancestors[name]
        found += [f"steps.{name}.input: {fault}" for fault in _references(step["input"], known)]
        found += [f"steps.{name}.input: {fault}" for fault in _input(step["input"], inputs[step["arm"]])]
    found += [f"answer: {fault}" for fault in _references(plan["answer"], set(steps))]
    return found


def _wiring(steps: Mapping[str, Any], inputs: Mapping[str, Any]) -> Iterator[str]:
    for name, step in steps.items():
        if step["arm"] not in inputs:
            yield f"steps.{name}.arm: there is no arm {step['arm']}; the arms are {', '.join(sorted(inputs))}"
        if "verdict" in step and step["arm"] != "judge":
            yield f"steps.{name}.verdict: only a step of arm judge has a verdict"
        for need in step.get("needs", ()):
            if need not in steps:
                yield f"steps.{name}.needs: {need} is not a step of this plan"
    try:
        TopologicalSorter({name: step.get("needs", ()) for name, step in steps.items()}).prepare()
    except CycleError as error:
        yield f"the steps depend on each other in a cycle: {' -> '.join(error.args[1])}"


def _ancestors(steps: Mapping[str, Any], name: str) -> set[str]:
    """Return the steps that must have ended before this one starts."""
    found: set[str] = set()
    todo = list(steps[name].get("needs", ()))
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += steps[one].get("needs", ())
    return found


def _repair(steps: Mapping[str, Any], ancestors: Mapping[str, set[str]], repair: Mapping[str, Any]) -> Iterator[str]:
    judge, redo = repair["judge"], repair["redo"]
    if judge not in steps or steps[judge]["arm"] != "judge" or steps[judge].get("verdict") == "informs":
        yield f"repair.judge: {judge} is not a step of arm judge whose verdict decides"
    elif redo not in ancestors[judge]:
        yield f"repair.redo: {redo} is not a step that {judge} depends on"


def _references(template: Any, known: set[str]) -> Iterator[str]:  # noqa: ANN401  any JSON value
    if isinstance(template, Mapping):
        expression = template.get("$")
        if len(template) == 1 and isinstance(expression, str):
            yield from _expression(expression, known)
            return
        template = list(template.values())
    if isinstance(template, list):
        for value in template:
            yield from _references(value, known)


def _expression(expression: str, known: set[str]) -> Iterator[str]:
    try:
        compiled(expression)
    except RecipeError as error:
        yield error.message
        return
    for name in dict.fromkeys(_STEP_IN_EXPRESSION.findall(expression)):
        if name not in known:
            yield f"{expression!r} refers to step {name}, which may not have ended by then; add it to needs"


def _input(value: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    for broken in validator(with_references(schema)).iter_errors(value):
        place = ".".join(str(part) for part in broken.instance_path)
        yield f"{place + ': ' if place else ''}{broken.message[:300]}"


def with_references(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that accepts a reference in place of any value.

    Discriminators, the properties that conditions test, stay literal: a plan must say which mode it means.
    """
    extended = dict(schema)
    discriminators = {name for one in schema.get("allOf", ()) for name in one.get("if", {}).get("properties", ())}
    if "properties" in extended:
        extended["properties"] = {
            name: one if name in discriminators else _or_reference(one) for name, one in extended["properties"].items()
        }
    for name in ("items", "additionalProperties"):
        if isinstance(extended.get(name), Mapping):
            extended[name] = _or_reference(extended[name])
    return extended


def _or_reference(schema: Mapping[str, Any]) -> dict[str, Any]:
    # Not `anyOf`: its error would name neither alternative.
    return {"if": {"type": "object", "required": ["$"]}, "then": _REFERENCE, "else": with_references(schema)}
