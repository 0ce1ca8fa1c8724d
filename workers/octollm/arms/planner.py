"""The planner: asks a model for a plan, and accepts it only if it follows the rules of `plan_rules`.

Input `{"goal", "kind"?, "input"?, "metadata"?, "arms": [name], "kinds": [name]}`, written by the orchestrator; `arms`:
those that have a topic, `kinds`: those that have a recipe. Output `{"plan": {"steps", "answer", "repair"?}, "mode":
"model", "provider", "model", "tokens": {"input", "output"}}`, where `plan` has the form of a recipe file. Without a
model the step fails with `needs_model`.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from octollm.arms import plan_rules
from octollm.arms.base import ArmContext, invalid, require_fields
from octollm.arms.prompting import arm_descriptions, as_data, ask_model, prompt
from octollm.contracts import StepRequested
from octollm.ports import Question


class Planner:
    """Arm `planner`."""

    uses_model = True

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """Return the output described in the module. Raises PermanentError for invalid input."""
        given = step.input
        require_fields(given, {"goal", "arms", "kinds"}, {"kind", "input", "metadata"})
        if not isinstance(given["goal"], str) or not given["goal"].strip():
            raise invalid("input.goal must be text")
        arms = _arms(_names(given, "arms"))
        question = Question("plan", _system(arms), _prompt(given, _names(given, "kinds")), plan_rules.SCHEMA)
        inputs = {name: about["input"] for name, about in arms.items()}

        async def find_faults(plan: Mapping[str, Any]) -> list[str]:
            return await ctx.isolated(plan_rules.faults, plan, inputs)

        accepted = await ask_model(ctx, step, question, find_faults, "a plan for this goal")
        ctx.log.info("made a plan", steps=len(accepted.value["steps"]))
        return {"plan": accepted.value, **accepted.origin}


def _names(given: Mapping[str, Any], field: str) -> list[str]:
    names = given[field]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise invalid(f"input.{field} must be a list of names")
    return sorted(set(names))


def _arms(available: list[str]) -> dict[str, Any]:
    """Return the descriptions of the available arms. A model must not use an arm that has no description."""
    arms = {name: arm_descriptions()[name] for name in available if name in arm_descriptions()}
    if not arms:
        raise invalid(f"input.arms must name at least one of {', '.join(sorted(arm_descriptions()))}")
    return arms


def _system(arms: Mapping[str, Any]) -> str:
    """Return the system prompt: the same bytes for the same arms, so that providers can cache it."""
    parts = [prompt("plan")]
    for name, about in arms.items():
        schema = orjson.dumps(about["input"], option=orjson.OPT_SORT_KEYS).decode()
        examples = "\n".join(orjson.dumps(one).decode() for one in about["examples"])
        parts.append(
            f"## {name}\n\n{about['does']}\n\nInput, by this JSON Schema:\n{schema}\n\n"
            f"Examples of its input:\n{examples}\n\nOutput: {about['output']}"
        )
    return "\n\n".join(parts)


def _prompt(given: Mapping[str, Any], kinds: list[str]) -> str:
    parts = [as_data("goal", given["goal"])]
    parts += [as_data(name, given[name]) for name in ("kind", "input", "metadata") if name in given]
    if kinds:
        parts.append(
            f"Ready-made plans exist for these kinds of task: {', '.join(kinds)}. None was chosen for this one."
        )
    parts.append("Give the plan for this goal.")
    return "\n\n".join(parts)
