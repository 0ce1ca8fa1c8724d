"""Direct hand-off: linear chains of steps that arms send to each other. Pure.

The message of a chain's first step carries the steps that follow (its continuation). The arm that finishes a step makes
the next step's message from the continuation and its own output. It equals the message that the orchestrator would
make, unless another output is committed in the end; therefore each message names the digests of what it builds on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from octollm.contracts import ContinuationStep, StepContinuation, StepRequested, strict_json, write
from octollm.errors import ContractError, RecipeError
from octollm.plans import template
from octollm.plans.plan import Plan, PlanStep
from octollm.plans.stored import as_stored

LIMIT = 64 * 1024
"""Most bytes of JSON of a continuation in a message; a longer chain is cut."""
_MAX_STEPS = 32
"""Steps in a continuation; as in the schema."""
_DEPTH = strict_json.MAX_DEPTH - 1
"""Levels of JSON a continuation may have within its message."""
_ENDS_AFTER = frozenset({"executor", "judge"})
"""Arms that send no step: the sandbox cannot, and what follows a verdict is the orchestrator's decision."""
_ENDS_BEFORE = frozenset({"executor"})


def may_precede(plan: Plan, name: str) -> bool:
    """Whether a later step may be chained on this step's output. Over-approximates `following`."""
    return name in plan.sole_needs and plan.by_name[name].arm not in _ENDS_AFTER


def following(plan: Plan, first: str) -> tuple[PlanStep, ...]:
    """Return the steps that may follow `first` without the orchestrator, in order.

    A chain ends before joins, fan-outs and the executor's steps, after a judge, and before a step whose references may
    still change.
    """
    found: list[PlanStep] = []
    step = plan.by_name[first]
    members = {first}
    while step.arm not in _ENDS_AFTER and len(found) < _MAX_STEPS:
        after = [one for one in plan.steps if step.name in one.needs]
        if len(after) != 1 or after[0].needs != (step.name,) or after[0].arm in _ENDS_BEFORE:
            break
        step = after[0]
        if not _is_determined(plan, step, members):
            break
        found.append(step)
        members.add(step.name)
    return tuple(found)


def digest(output: Mapping[str, Any]) -> str:
    """Return the digest of an output.

    It is the SHA-256 of its JSON with sorted keys and no spaces, as lower-case hexadecimal.
    """
    return hashlib.sha256(orjson.dumps(output, option=orjson.OPT_SORT_KEYS)).hexdigest()


def continuation(
    steps: Sequence[PlanStep | ContinuationStep], seen: Mapping[str, Any], digests: Mapping[str, str], attempt: int
) -> StepContinuation | None:
    """Return as many of these steps as fit into a message, or None if none does.

    `seen`: what references can read, see `template`. `digests`: of outputs, by step. `attempt`: of the steps.
    """
    remaining = [step if isinstance(step, ContinuationStep) else _plain(step) for step in steps]
    while remaining:
        names = _names(remaining)
        found = StepContinuation(
            attempt=attempt,
            steps=remaining,
            seen={
                "task": {name: value for name, value in seen["task"].items() if ("task", name) in names},
                "steps": {name: value for name, value in seen["steps"].items() if ("steps", name) in names},
                "round": seen["round"],
            },
            digests={name: value for name, value in digests.items() if ("steps", name) in names},
        )
        if _fits(found):
            return found
        remaining = remaining[: len(remaining) // 2]
    return None


def next_request(step: StepRequested, output: dict[str, Any]) -> StepRequested | None:
    """Return the request that follows this output, or None if the orchestrator has to send it.

    The orchestrator also gets a request whose references cannot be resolved, because it ends the task.
    """
    if (
        step.continuation is None
        or not step.continuation.steps
        or not isinstance(step.continuation.seen.get("steps"), dict)
    ):
        return None
    first, *later = step.continuation.steps
    own = {"output": as_stored(output), "round": step.round, "attempt": step.attempt}
    seen = {"task": {}, "round": step.round, **step.continuation.seen}
    seen["steps"] = {**seen["steps"], step.step: own}
    try:
        resolved = template.render(first.input, seen)
    except RecipeError:
        return None
    if not isinstance(resolved, dict):
        return None
    digests = {**step.continuation.digests, step.step: digest(output)}
    names = {step.step} | {name for part, name in _names([first]) if part == "steps"}
    return step.model_copy(
        update={
            "step": first.step,
            "arm": first.arm,
            "attempt": step.continuation.attempt,
            "failures": 0,
            "input": resolved,
            "timeout_s": first.timeout_s,
            "builds_on": {name: value for name, value in digests.items() if name in names},
            "continuation": continuation(later, seen, digests, step.continuation.attempt),
        }
    )


def _is_determined(plan: Plan, step: PlanStep, members: set[str]) -> bool:
    """Whether everything the step refers to is known when its chain starts, or is an output of the chain.

    The output of a parallel step is not: it may arrive in between. A later step's output is of the previous round. The
    attempt that is committed may differ from the one that was chained.
    """
    for path in template.references(step.input):
        match path:
            case ("round",) | ("task", _, *_):
                pass
            case ("steps", name, part, *_) if name in members:
                if part == "attempt":
                    return False
            case ("steps", name, _, *_) if name in plan.upstream(step.name) or name in plan.downstream(step.name):
                pass
            case _:
                return False
    return not template.sees_all(step.input)


def _names(steps: Sequence[ContinuationStep]) -> set[tuple[str, str]]:
    """Return what their references read: ("task", field) and ("steps", name)."""
    paths = (path for step in steps for path in template.references(step.input))
    return {(path[0], path[1]) for path in paths if len(path) > 1}


def _plain(step: PlanStep) -> ContinuationStep:
    return ContinuationStep(step=step.name, arm=step.arm, timeout_s=step.timeout_s, input=dict(step.input))


def _fits(found: StepContinuation) -> bool:
    raw = write(found)
    try:
        strict_json.check_depth(raw, _DEPTH)
    except ContractError:
        return False
    return len(raw) <= LIMIT
