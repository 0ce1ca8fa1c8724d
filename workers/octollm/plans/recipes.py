"""Recipes: plan templates by task kind, one YAML file each. Everything that can be wrong with one is found at start."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from octollm.errors import InvalidInputError, RecipeError
from octollm.plans import template
from octollm.plans.plan import Plan, PlanStep, Repair, in_order

MAX_STEPS = 200
MAX_REPAIRS = 5
"""The hard cap on repair rounds: a recipe may allow fewer, never more."""
_Name = Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_-]{0,62}\z")]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _StepFile(_Closed):
    arm: _Name
    needs: list[_Name] = []
    timeout_s: Annotated[int, Field(ge=1, le=86400)] = 60
    input: dict[str, Any]
    verdict: Literal["decides", "informs"] = "decides"
    """Of a judge step: whether its "fail" fails the task."""


class _RepairFile(_Closed):
    judge: _Name
    redo: _Name
    max: Annotated[int, Field(ge=1, le=MAX_REPAIRS)]


class _RecipeFile(_Closed):
    recipe: Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_.-]{0,62}\z")]
    version: Annotated[int, Field(ge=1)]
    description: Annotated[str, Field(min_length=1)]
    input: dict[str, Any]
    deadline_s: Annotated[int, Field(ge=1, le=604800)]
    steps: Annotated[dict[_Name, _StepFile], Field(min_length=1, max_length=MAX_STEPS)]
    answer: Any
    repair: _RepairFile | None = None


@dataclass(frozen=True)
class Recipe:
    """A loaded recipe; its plan is the same for every task, since references are resolved when a step is sent."""

    kind: str
    description: str
    deadline_s: int
    plan: Plan
    _schema: jsonschema_rs.Validator

    def check_input(self, value: Mapping[str, Any]) -> None:
        """Raises InvalidInputError that names the field, never its value."""
        error = next(self._schema.iter_errors(value), None)
        if error is not None:
            place = ".".join(str(part) for part in error.instance_path) or "input"
            rule = ".".join(str(part) for part in error.schema_path)
            raise InvalidInputError(f"{place}: does not fit the recipe {self.kind} (rule {rule})")


class RecipeBook:
    """All recipes of a folder, by kind."""

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self._recipes = dict(recipes)

    def get(self, kind: str) -> Recipe | None:
        """The recipe of a kind, if there is one."""
        return self._recipes.get(kind)

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds, sorted."""
        return tuple(sorted(self._recipes))


def load_recipes(folder: Path, arms: frozenset[str]) -> RecipeBook:
    """Every `*.yaml` of the folder. Raises RecipeError that names the file and what to change."""
    if not folder.is_dir():
        raise RecipeError(f"the folder of recipes {folder} does not exist; correct orchestrator.recipes_dir")
    recipes: dict[str, Recipe] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            recipe = parse_recipe(path.read_bytes(), arms)
        except (RecipeError, OSError) as error:
            raise RecipeError(f"{path}: {error}") from error
        if recipe.kind in recipes:
            raise RecipeError(f"{path}: there is a second recipe {recipe.kind} in this folder; rename one")
        recipes[recipe.kind] = recipe
    return RecipeBook(recipes)


def parse_recipe(text: bytes, arms: frozenset[str]) -> Recipe:
    """One recipe, checked in full."""
    try:
        file = _RecipeFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise RecipeError(f"{'.'.join(str(part) for part in first['loc']) or 'recipe'}: {first['msg']}") from error
    try:
        schema = jsonschema_rs.validator_for(file.input)
    except jsonschema_rs.ValidationError as error:
        raise RecipeError(f"input is not a JSON Schema: {error.message}") from error
    steps = {
        name: PlanStep(name, step.arm, tuple(dict.fromkeys(step.needs)), step.timeout_s, step.input)
        for name, step in file.steps.items()
    }
    for step in steps.values():
        if step.arm not in arms:
            raise RecipeError(f"step {step.name} is for arm {step.arm}; the topology has {', '.join(sorted(arms))}")
    plan = Plan(
        recipe=file.recipe,
        version=file.version,
        steps=in_order(steps),
        answer=file.answer,
        judges=tuple(name for name, step in file.steps.items() if step.arm == "judge" and step.verdict == "decides"),
        repair=None if file.repair is None else Repair(file.repair.judge, file.repair.redo, file.repair.max),
    )
    _check_repair(plan)
    _check_references(plan, file.input)
    return Recipe(file.recipe, file.description, file.deadline_s, plan, schema)


def _check_repair(plan: Plan) -> None:
    if plan.repair is None:
        return
    if plan.repair.judge not in plan.judges:
        raise RecipeError(f"repair.judge: {plan.repair.judge} is no step of arm judge whose verdict decides")
    if plan.repair.redo not in plan.by_name:
        raise RecipeError(f"repair.redo: {plan.repair.redo} is no step of this recipe")
    if plan.repair.judge not in plan.downstream(plan.repair.redo):
        raise RecipeError(f"repair.redo: {plan.repair.judge} does not depend on {plan.repair.redo}, so nothing changes")


def _check_references(plan: Plan, schema: Mapping[str, Any]) -> None:
    for step in plan.steps:
        # In a repair round a step may look at what the verdict was.
        repaired = plan.repair is not None and step.name in plan.downstream(plan.repair.redo)
        known = plan.upstream(step.name) | (frozenset(plan.by_name) if repaired else frozenset())
        _check_template(step.input, f"steps.{step.name}.input", known, schema)
    _check_template(plan.answer, "answer", frozenset(plan.by_name), schema)


def _check_template(value: Any, place: str, steps: frozenset[str], schema: Mapping[str, Any]) -> None:  # noqa: ANN401
    try:
        paths = list(template.references(value))
    except RecipeError as error:
        raise RecipeError(f"{place}: {error}") from error
    for path in paths:
        match path:
            case ("round",) | ("task", "goal" | "kind" | "metadata", *_):
                pass
            case ("task", "input", *rest):
                properties = schema.get("properties", {})
                if rest and rest[0] not in properties:
                    raise RecipeError(f"{place}: the input schema has no property {rest[0]}")
            case ("steps", name, "output" | "round" | "attempt", *_) if name in steps:
                pass
            case ("steps", name, *_) if name not in steps:
                raise RecipeError(f"{place}: refers to step {name}, which has not ended then; add it to needs")
            case _:
                hint = "use task.goal, task.kind, task.input, task.metadata, steps.<name>.output, or round"
                raise RecipeError(f"{place}: {'.'.join(path)} leads nowhere; {hint}")
