"""Recipes: plan templates by task kind, one YAML file each, checked completely when a process starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from octollm.contracts.json_schema import Validator, validator
from octollm.errors import InvalidInputError, RecipeError, SchemaError
from octollm.plans.checks import first_error, make_plan
from octollm.plans.file import RecipeFile
from octollm.plans.memory_facts import memory_template
from octollm.plans.plan import Plan


@dataclass(frozen=True)
class Recipe:
    """A loaded recipe. Its plan is the same for every task: references are resolved when a step is sent."""

    kind: str
    description: str
    deadline_s: int
    plan: Plan
    schema: Mapping[str, Any]
    """JSON Schema of the task's input."""
    _validator: Validator

    def check_input(self, value: Mapping[str, Any]) -> None:
        """Check a task's input. Raises InvalidInputError that names the field, never its value."""
        error = next(self._validator.iter_errors(value), None)
        if error is not None:
            place = ".".join(str(part) for part in error.instance_path) or "input"
            rule = ".".join(str(part) for part in error.schema_path)
            raise InvalidInputError(f"{place}: does not fit the recipe {self.kind} (rule {rule})")


class RecipeBook:
    """All recipes of a folder, by kind."""

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self._recipes = dict(recipes)

    def get(self, kind: str) -> Recipe | None:
        """Return the recipe of a kind, or None."""
        return self._recipes.get(kind)

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds, sorted."""
        return tuple(sorted(self._recipes))

    @property
    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """JSON Schema of the input by kind."""
        return {kind: recipe.schema for kind, recipe in self._recipes.items()}


def load_recipes(folder: Path, arms: frozenset[str]) -> RecipeBook:
    """Load every `*.yaml` of a folder. `arms`: those of the topology.

    Raises RecipeError that names the file and says what to change.
    """
    if not folder.is_dir():
        raise RecipeError(f"the folder of recipes {folder} does not exist; correct orchestrator.recipes_dir")
    recipes: dict[str, Recipe] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            recipe = parse_recipe(path.read_bytes(), arms)
        except (RecipeError, OSError) as error:
            raise RecipeError(f"{path}: {error}") from error
        if recipe.kind in recipes:
            raise RecipeError(f"{path}: the folder has another recipe {recipe.kind}; rename one")
        recipes[recipe.kind] = recipe
    return RecipeBook(recipes)


def parse_recipe(text: bytes, arms: frozenset[str]) -> Recipe:
    """Load one recipe from YAML. Raises RecipeError that says what to change."""
    try:
        file = RecipeFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RecipeError(f"not valid YAML: {error}") from error
    except ValidationError as error:
        raise RecipeError(first_error(error, "recipe")) from error
    try:
        checked = validator(file.input)
    except SchemaError as error:
        raise RecipeError(f"input is not a JSON Schema: {error.message}") from error
    memory = memory_template(file.memory)
    plan = make_plan(file, file.recipe, file.version, arms, schema=file.input, memory=memory)
    return Recipe(file.recipe, file.description, file.deadline_s, plan, file.input, checked)
