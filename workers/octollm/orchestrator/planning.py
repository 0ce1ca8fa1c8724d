"""Makes a task's plan: from the recipe of its kind, or by asking the planner arm and its model. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from octollm.errors import InvalidInputError, RecipeError
from octollm.orchestrator.state import Reason, TaskState
from octollm.plans.plan import Plan, PlanStep
from octollm.plans.proposal import BY_MODEL, PLANNER, PLANNING, read_proposal
from octollm.plans.recipes import RecipeBook

_PLANNING_S = 600
"""Time limit of the planner's step; the topology's own limit is usually shorter."""
_MODEL_DEADLINE_S = 3600
"""Deadline of a task that is planned by a model and names no deadline."""

ANY_OTHER = "*"
"""In `schemas`: every other kind, and none."""


@dataclass(frozen=True, slots=True)
class Unplannable:
    """Why a task cannot be planned."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Planning:
    """The sources of plans in this process."""

    book: RecipeBook
    arms: frozenset[str] = frozenset()
    """Arms of the topology."""
    model: bool = False
    """Whether a model is configured for the planner arm."""

    @property
    def uses_model(self) -> bool:
        """Whether a task without a recipe is planned by a model."""
        return self.model and PLANNER in self.arms

    @property
    def schemas(self) -> dict[str, bytes]:
        """JSON Schema of the input, as JSON, of each kind that can be planned.

        `*` stands for all other kinds and for tasks without one, if a model plans these.
        """
        schemas: dict[str, object] = dict(self.book.schemas)
        if self.uses_model:
            schemas[ANY_OTHER] = True
        return {kind: orjson.dumps(schema, option=orjson.OPT_SORT_KEYS) for kind, schema in schemas.items()}

    def deadline_s(self, kind: str | None) -> int | None:
        """Return the deadline of a task that names none, in seconds after its start.

        Return None if it has no deadline.
        """
        recipe = None if kind is None else self.book.get(kind)
        if recipe is not None:
            return recipe.deadline_s
        return _MODEL_DEADLINE_S if self.uses_model else None

    def plan(self, state: TaskState) -> Plan | Unplannable:
        """Return the task's first plan, or why there is none."""
        recipe = None if state.kind is None else self.book.get(state.kind)
        if recipe is not None:
            try:
                recipe.check_input(state.submission.get("input") or {})
            except InvalidInputError as error:
                return Unplannable("invalid_input", str(error))
            return recipe.plan
        if self.uses_model:
            return self._planner_step()
        if state.kind is None:
            detail = "the task names no kind, and without a model only recipes can plan"
            return Unplannable("needs_model", detail)
        known = ", ".join(self.book.kinds)
        return Unplannable("unknown_kind", f"no recipe for {state.kind}; there are {known}")

    def _planner_step(self) -> Plan:
        step_input = {
            # References, so that nothing a producer wrote is evaluated as one.
            **{name: {"$": f"task.{name}"} for name in ("goal", "kind", "input", "metadata")},
            "arms": sorted(self.arms - {PLANNER}),
            "kinds": list(self.book.kinds),
        }
        step = PlanStep(PLANNING, PLANNER, (), _PLANNING_S, step_input)
        return Plan(BY_MODEL, 1, (step,), answer=None, judges=(), planner=PLANNING)


def brings_plan(plan: Plan, step: str) -> bool:
    """Whether the output of this step is the rest of the plan."""
    return plan.planner == step and len(plan.steps) == 1


def adopt(plan: Plan, output: Mapping[str, Any]) -> Plan:
    """Return the whole plan: the planner's step and the steps in its output.

    Raises RecipeError if that is no plan.

    The arms are checked against those in the planner's input, so that the same event always leads to the same plan.
    """
    planner = plan.steps[0]
    if "plan" not in output:
        raise RecipeError("the planner's output has no plan")
    proposed = read_proposal(output["plan"], frozenset(planner.input["arms"]))
    steps = tuple(replace(step, needs=step.needs or (planner.name,)) for step in proposed.steps)
    return replace(proposed, steps=(planner, *steps), planner=plan.planner)
