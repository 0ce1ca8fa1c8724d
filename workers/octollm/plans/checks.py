"""Builds a plan from its written form and rejects one that could not be run."""

import re
from collections.abc import Mapping, Set
from typing import Any

from pydantic import ValidationError

from octollm.errors import RecipeError
from octollm.plans import template
from octollm.plans.file import PlanFile
from octollm.plans.plan import Plan, PlanStep, Repair, in_order

_TRIED = re.compile(r"[A-Z]|constrained-str$|(list|dict)\[")


def make_plan(
    file: PlanFile,
    recipe: str,
    version: int,
    arms: Set[str],
    *,
    schema: Mapping[str, Any] | None,
    memory: Mapping[str, Any] | None = None,
) -> Plan:
    """Build a plan. Raises RecipeError that says what to change.

    `recipe`, `version`: where it comes from. `arms`: those its steps may use. `schema`: JSON Schema of the task's
    input, None if unknown. `memory`: template of what the task writes to memory.
    """
    steps = {
        name: PlanStep(name, step.arm, tuple(dict.fromkeys(step.needs)), step.timeout_s, step.input)
        for name, step in file.steps.items()
    }
    for step in steps.values():
        if step.arm not in arms:
            raise RecipeError(f"step {step.name} is for arm {step.arm}; the topology has {', '.join(sorted(arms))}")
    plan = Plan(
        recipe=recipe,
        version=version,
        steps=in_order(steps),
        answer=file.answer,
        judges=tuple(name for name, step in file.steps.items() if step.arm == "judge" and step.verdict == "decides"),
        repair=None if file.repair is None else Repair(file.repair.judge, file.repair.redo, file.repair.max),
        memory=memory,
    )
    _check_repair(plan)
    _check_references(plan, schema)
    return plan


def first_error(error: ValidationError, whole: str) -> str:
    """Return the first error of a written form with its place.

    `whole` names the place of the form itself.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(part)[:80] for part in first["loc"]]
    if place[:1] == ["memory"]:
        # Where a string or a reference is allowed, pydantic also names the one it tried.
        place = [part for part in place if not _TRIED.match(part)]
    return f"{'.'.join(place) or whole}: {first['msg']}"


def _check_repair(plan: Plan) -> None:
    if plan.repair is None:
        return
    if plan.repair.judge not in plan.judges:
        raise RecipeError(f"repair.judge: {plan.repair.judge} is not a step of arm judge whose verdict decides")
    if plan.repair.redo not in plan.by_name:
        raise RecipeError(f"repair.redo: {plan.repair.redo} is not a step of this plan")
    if plan.repair.judge not in plan.downstream(plan.repair.redo):
        raise RecipeError(f"repair.redo: {plan.repair.judge} does not depend on {plan.repair.redo}, so nothing changes")


def _check_references(plan: Plan, schema: Mapping[str, Any] | None) -> None:
    for step in plan.steps:
        # In a repair round a step may refer to the verdict.
        repaired = plan.repair is not None and step.name in plan.downstream(plan.repair.redo)
        known = plan.upstream(step.name) | (frozenset(plan.by_name) if repaired else frozenset())
        _check_template(step.input, f"steps.{step.name}.input", known, schema)
    _check_template(plan.answer, "answer", frozenset(plan.by_name), schema)
    _check_template(plan.memory, "memory", frozenset(plan.by_name), schema)


def _check_template(
    value: Any,  # noqa: ANN401  any JSON value
    place: str,
    steps: frozenset[str],
    schema: Mapping[str, Any] | None,
) -> None:
    try:
        paths = list(template.references(value))
    except RecipeError as error:
        raise RecipeError(f"{place}: {error}") from error
    for path in paths:
        match path:
            case ("round",) | ("task", "goal" | "kind" | "metadata", *_):
                pass
            case ("task", "input", *rest):
                if schema is not None and rest and rest[0] not in schema.get("properties", {}):
                    raise RecipeError(f"{place}: the input schema has no property {rest[0]}")
            case ("steps", name, "output" | "round" | "attempt", *_) if name in steps:
                pass
            case ("steps", name, *_) if name not in steps:
                raise RecipeError(f"{place}: refers to step {name}, which may not have ended then; add it to needs")
            case _:
                hint = "use task.goal, task.kind, task.input, task.metadata, steps.<name>.output, or round"
                raise RecipeError(f"{place}: {'.'.join(path)} does not exist; {hint}")
