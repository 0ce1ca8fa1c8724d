"""Tasks as `decide` sees them: a state, the ends of steps, and no database."""

from typing import Any

from octollm.contracts import InlineOutput, StepRequested, StepSucceeded
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import Accepted, CancelRequested
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Decision, StepEnded, TaskState
from octollm.plans.recipes import RecipeBook, parse_recipe
from tests.helpers.messages import about

NOW, LATER = "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:07.000Z"
ARMS = frozenset({"noop", "judge", "planner"})
FORK = b"""
recipe: fork
version: 1
description: one, then two next to each other
input: {type: object}
deadline_s: 60
steps:
  first: {arm: noop, input: {}}
  left: {arm: noop, needs: [first], input: {}}
  right: {arm: noop, needs: [first], input: {}}
answer: {$: steps.left.output.name}
memory:
  title: {$: task.goal}
  text: {$: steps.right.output.text}
"""
BOOK = RecipeBook({"fork": parse_recipe(FORK, ARMS)})
OURS = CancelRequested("default", "no longer needed")


def fresh(**submission: Any) -> TaskState:
    """A task that admission let through and the orchestrator has not seen; kind `fork` unless `submission` differs."""
    return TaskState(
        task="l0-01jd0000000000000000000000",
        tenant="default",
        submission={"goal": "g", "kind": "fork", **submission},
        source="http",
        idempotency_key="k",
        fingerprint="0" * 64,
        redactions={},
        priority="normal",
        received_at=NOW,
        traceparent="",
        deadline_at="2026-01-01T00:01:00.000Z",
        starts_at=submission.get("not_before"),
    )


def accepted(*, model: bool = False, **submission: Any) -> Decision:
    """The decision that accepts a fresh task; with `model`, a planner may be asked."""
    return decide(fresh(**submission), Accepted(Planning(BOOK, ARMS, model)), NOW)


def begun(recipe: bytes) -> Decision:
    """The decision that accepts a fresh task of this recipe."""
    loaded = parse_recipe(recipe, ARMS)
    return decide(fresh(kind=loaded.kind, input={}), Accepted(Planning(RecipeBook({loaded.kind: loaded}))), NOW)


def succeeded(step: StepRequested, output: dict[str, Any] | None = None) -> StepEnded:
    """The successful end of a step, by default with an output that names the step and its round."""
    value = {"name": f"{step.step} {step.round}"} if output is None else output
    done = StepSucceeded(outcome="succeeded", output=InlineOutput(at="inline", value=value), **about(step))
    return StepEnded(done, value)


def run(decision: Decision, outputs: dict[str, dict[str, Any]]) -> Decision:
    """Let every step succeed with its output by name, or with an empty one, and return the last decision."""
    queue = list(decision.requests)
    while queue:
        step = queue.pop(0)
        decision = decide(decision.state, succeeded(step, outputs.get(step.step, {})), LATER)
        queue += decision.requests
    return decision
