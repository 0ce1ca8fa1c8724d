"""Builds a step's request: its input with every reference resolved against what is known of the task.

Pure.
"""

from typing import Any

from octollm.contracts import StepRequested
from octollm.errors import RecipeError
from octollm.orchestrator.state import StepRow, TaskState
from octollm.plans import template


def step_request(state: TaskState, row: StepRow) -> StepRequested:
    """Build the request for a step's row.

    Raises RecipeError if its input cannot be resolved to an object.
    """
    if state.plan is None:
        raise RecipeError(f"task {state.task} has no plan")
    step = state.plan.by_name[row.step]
    resolved = template.render(step.input, reference_context(state, row.round))
    if not isinstance(resolved, dict):
        raise RecipeError(f"its input is a single reference, which must find an object and found {_kind(resolved)}")
    return StepRequested(
        task=state.task,
        run=state.run,
        step=row.step,
        round=row.round,
        attempt=row.attempt,
        tenant=state.tenant,
        arm=row.arm,
        priority=state.priority,
        failures=row.failures,
        input=resolved,
        timeout_s=step.timeout_s,
        deadline_at=state.deadline_at,
    )


def reference_context(state: TaskState, round_: int) -> dict[str, Any]:
    """Return what references can see: `task`, `round`, and under `steps` each step's newest output up to this round."""
    newest: dict[str, StepRow] = {}
    for (name, number), row in sorted(state.steps.items(), key=lambda item: item[0][1]):
        if row.output is not None and number <= round_:
            newest[name] = row
    submission = state.submission
    return {
        "task": {
            "goal": submission.get("goal"),
            "kind": submission.get("kind"),
            "input": submission.get("input") or {},
            "metadata": submission.get("metadata") or {},
        },
        "steps": {
            name: {"output": row.output, "round": row.round, "attempt": row.attempt} for name, row in newest.items()
        },
        "round": round_,
    }


def _kind(value: object) -> str:
    """Return what JSON calls a value that is not an object."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case _:
            return "an array"
