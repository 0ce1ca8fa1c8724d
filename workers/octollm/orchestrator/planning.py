"""Where a task's plan comes from: a recipe for its kind, or, step by step, the planner arm and its model. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from octollm.errors import InvalidInputError, RecipeError
from octollm.orchestrator.state import Reason, TaskState
from octollm.plans.plan import Plan, PlanStep
from octollm.plans.proposal import BY_MODEL, PLANNER, PLANNING, read_proposal
from octollm.plans.recipes import RecipeBook

_PLANNING_S = 600
"""Longest a planner step may run; the topology's own limit is usually shorter."""
_MODEL_DEADLINE_S = 3600
"""Of a task that a model plans and that names no deadline itself: it must end, too."""


@dataclass(frozen=True, slots=True)
class Unplannable:
    """Nothing can plan this task."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Planning:
    """What plans can come from here."""

    book: RecipeBook
    arms: frozenset[str] = frozenset()
    """Those of the topology."""
    model: bool = False
    """Whether a model is configured that the planner arm can ask."""

    @property
    def by_model(self) -> bool:
        """Whether what no recipe fits is planned nevertheless."""
        return self.model and PLANNER in self.arms

    def deadline_s(self, kind: str | None) -> int | None:
        """Deadline of a task that names none."""
        recipe = None if kind is None else self.book.get(kind)
        if recipe is not None:
            return recipe.deadline_s
        return _MODEL_DEADLINE_S if self.by_model else None

    def plan(self, state: TaskState) -> Plan | Unplannable:
        """The task's first plan."""
        recipe = None if state.kind is None else self.book.get(state.kind)
        if recipe is not None:
            try:
                recipe.check_input(state.submission.get("input") or {})
            except InvalidInputError as error:
                return Unplannable("invalid_input", str(error))
            return recipe.plan
        if self.by_model:
            return self._planner_step()
        if state.kind is None:
            detail = "the task names no kind, and without a model only recipes can plan"
            return Unplannable("needs_model", detail)
        known = ", ".join(self.book.kinds)
        return Unplannable("unknown_kind", f"no recipe for {state.kind}; there are {known}")

    def _planner_step(self) -> Plan:
        asked = {
            # References, so that nothing a producer wrote is taken for one.
            **{name: {"$": f"task.{name}"} for name in ("goal", "kind", "input", "metadata")},
            "arms": sorted(self.arms - {PLANNER}),
            "kinds": list(self.book.kinds),
        }
        step = PlanStep(PLANNING, PLANNER, (), _PLANNING_S, asked)
        return Plan(BY_MODEL, 1, (step,), answer=None, judges=(), planner=PLANNING)


def is_awaited(plan: Plan, step: str) -> bool:
    """Whether this step's output brings the rest of the plan."""
    return plan.planner == step and len(plan.steps) == 1


def adopt(plan: Plan, output: Mapping[str, Any]) -> Plan:
    """The whole plan: the planner's step and what it brought. Raises RecipeError.

    Judged against the arms the planner was told of, so that the same event always leads to the same plan.
    """
    asked = plan.steps[0]
    if "plan" not in output:
        raise RecipeError("the planner's output has no plan")
    proposed = read_proposal(output["plan"], frozenset(asked.input["arms"]))
    steps = tuple(replace(step, needs=step.needs or (asked.name,)) for step in proposed.steps)
    return replace(proposed, steps=(asked, *steps), planner=plan.planner)
