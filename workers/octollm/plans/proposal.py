"""Plans proposed by a model.

They have the form of a recipe file (`steps`, `answer`, `repair`) and are checked by the same rules.
"""

from collections.abc import Set
from typing import Any

import orjson
from pydantic import ValidationError

from octollm.errors import RecipeError
from octollm.plans.checks import first_error, make_plan
from octollm.plans.file import PlanFile
from octollm.plans.plan import Plan

PLANNER = "planner"
"""The arm that asks the model; it may not plan steps for itself."""
PLANNING = "plan"
"""Name of the planner's step; no step of a proposal may have it."""
BY_MODEL = "(model)"
"""Stands in place of a recipe's name; no recipe can have it."""


def read_proposal(value: Any, arms: Set[str]) -> Plan:  # noqa: ANN401  any JSON value
    """Return the proposed plan after all checks. `arms`: those it may use. Raises RecipeError."""
    try:
        # From bytes: strict mode accepts more in values that were decoded before.
        file = PlanFile.model_validate_json(orjson.dumps(value))
    except (orjson.JSONEncodeError, TypeError) as error:
        raise RecipeError(f"the plan is not JSON: {error}") from error
    except ValidationError as error:
        raise RecipeError(first_error(error, "plan")) from error
    if PLANNING in file.steps:
        raise RecipeError(f"steps.{PLANNING}: this name is the planner's own; choose another")
    return make_plan(file, BY_MODEL, 1, arms - {PLANNER}, schema=None)
