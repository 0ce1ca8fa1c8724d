"""What a step's message says: its input with every reference resolved against what is known of the task. Pure."""

from typing import Any

from octollm.contracts import StepRequested
from octollm.errors import RecipeError
from octollm.orchestrator.state import StepRow, TaskState
from octollm.plans import template


def request(state: TaskState, row: StepRow) -> StepRequested:
    """The message for a step's row. Raises RecipeError where a reference cannot be evaluated, or gives no input."""
    if state.plan is None:
        raise RecipeError(f"task {state.task} has no plan")
    step = state.plan.by_name[row.step]
    resolved = template.resolve(step.input, context(state, row.round))
    if not isinstance(resolved, dict):  # the whole input is one reference
        kind = "nothing" if resolved is None else f"a {type(resolved).__name__}"
        raise RecipeError(f"its input {step.input} is {kind} now, and has to be an object")
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


def context(state: TaskState, round_: int) -> dict[str, Any]:
    """What expressions see; of each step the newest output up to this round."""
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
