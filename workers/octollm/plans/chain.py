"""Linear stretches: steps of a plan that go from arm to arm without the orchestrator in between. Pure.

The message of a stretch's first step carries the rest of it. Whoever finishes a step makes the next one's message
from that and its own output: the very message that the orchestrator would make, unless the output that is committed
turns out to be another. Therefore each message names the digests of what it builds on.
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
"""Bytes of JSON the rest of a stretch may have in a message; what is longer ends earlier."""
_LONGEST = 32
"""Steps in a rest; as in the schema."""
_DEPTH = strict_json.MAX_DEPTH - 1
"""Levels a rest may have within its message."""
_ENDS_AFTER = frozenset({"executor", "judge"})
"""Arms whose steps send nothing on: a sandbox only works, and what follows a verdict is decided by it."""
_ENDS_BEFORE = frozenset({"executor"})


def leads_on(plan: Plan, name: str) -> bool:
    """Whether a step may be handed on that was made from this one's output. Says yes more often than `following`."""
    return name in plan.sole_needs and plan.by_name[name].arm not in _ENDS_AFTER


def following(plan: Plan, first: str) -> tuple[PlanStep, ...]:
    """The steps that may follow `first` directly, in order.

    A stretch ends before joins, fan-outs and the executor's steps, after a judge, and before a step that looks at what
    may still change then.
    """
    found: list[PlanStep] = []
    step = plan.by_name[first]
    members = {first}
    while step.arm not in _ENDS_AFTER and len(found) < _LONGEST:
        after = [one for one in plan.steps if step.name in one.needs]
        if len(after) != 1 or after[0].needs != (step.name,) or after[0].arm in _ENDS_BEFORE:
            break
        step = after[0]
        if not _settled(plan, step, members):
            break
        found.append(step)
        members.add(step.name)
    return tuple(found)


def digest(output: Mapping[str, Any]) -> str:
    """Of an output's JSON: with sorted keys, without spaces, SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(orjson.dumps(output, option=orjson.OPT_SORT_KEYS)).hexdigest()


def continuation(
    steps: Sequence[PlanStep | ContinuationStep], seen: Mapping[str, Any], digests: Mapping[str, str], attempt: int
) -> StepContinuation | None:
    """As much of these steps as fits into a message. `seen`: what references see, see `template`. `attempt`: theirs."""
    left = [step if isinstance(step, ContinuationStep) else _plain(step) for step in steps]
    while left:
        names = _names(left)
        found = StepContinuation(
            attempt=attempt,
            steps=left,
            seen={
                "task": {name: value for name, value in seen["task"].items() if ("task", name) in names},
                "steps": {name: value for name, value in seen["steps"].items() if ("steps", name) in names},
                "round": seen["round"],
            },
            digests={name: value for name, value in digests.items() if ("steps", name) in names},
        )
        if _fits(found):
            return found
        left = left[: len(left) // 2]
    return None


def onward(step: StepRequested, output: dict[str, Any]) -> StepRequested | None:
    """The message of what follows a step that had this output; None: that is the orchestrator's to send.

    So is what cannot be resolved: it ends the task.
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
        resolved = template.settle(first.input, seen)
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


def _settled(plan: Plan, step: PlanStep, members: set[str]) -> bool:
    """Whether all that the step looks at is known when its stretch begins, or is an output of the stretch.

    A step beside it may end meanwhile, so what that gave is not; a later one's output is of the round before. The
    attempt that was committed may be another than the one that was handed on.
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
    """What their references look at: ("task", field) and ("steps", name)."""
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
