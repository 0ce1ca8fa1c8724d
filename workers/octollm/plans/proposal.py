"""Plans that a model proposes: in the form of a recipe file (`steps`, `answer`, `repair`), judged by the same rules."""

from collections.abc import Set
from typing import Any

import orjson
from pydantic import ValidationError

from octollm.errors import RecipeError
from octollm.plans.checks import first_fault, make_plan
from octollm.plans.file import PlanFile
from octollm.plans.plan import Plan

PLANNER = "planner"
"""The arm that asks the model. It plans no steps for itself."""
PLANNING = "plan"
"""Name of the step that brings the rest of a plan; no step of a proposal may have it."""
BY_MODEL = "(model)"
"""In the place of a recipe's name, which no recipe can have."""


def read_proposal(value: Any, arms: Set[str]) -> Plan:  # noqa: ANN401  any JSON value
    """The proposed plan, checked in full. `arms`: those it may use. Raises RecipeError that says what to change."""
    try:
        # From bytes: what was decoded before is judged more loosely.
        file = PlanFile.model_validate_json(orjson.dumps(value))
    except (orjson.JSONEncodeError, TypeError) as error:
        raise RecipeError(f"the plan is not JSON: {error}") from error
    except ValidationError as error:
        raise RecipeError(first_fault(error, "plan")) from error
    if PLANNING in file.steps:
        raise RecipeError(f"steps.{PLANNING}: this name is the planner's own; choose another")
    return make_plan(file, BY_MODEL, 1, arms - {PLANNER}, schema=None)
