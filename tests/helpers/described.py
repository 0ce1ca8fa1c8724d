"""The arms' inputs as they are described to a planning model, and values that break the description."""

from typing import Any

from octollm.arms import plan_rules
from octollm.arms.prompting import arm_descriptions


def examples(*arms: str) -> list[tuple[str, dict[str, Any]]]:
    """Pairs of an arm's name and one of its described examples."""
    return [(arm, example) for arm in arms for example in arm_descriptions()[arm]["examples"]]


def fits(arm: str, value: dict[str, Any]) -> bool:
    """Say whether the description of the arm allows this input."""
    return not list(plan_rules._input(value, arm_descriptions()[arm]["input"]))


def broken(value: Any) -> list[Any]:
    """Every way to leave out one field, add one that nobody knows, or put a number where something else was."""
    found: list[Any] = []
    if isinstance(value, dict):
        found += [{name: one for name, one in value.items() if name != left_out} for left_out in value]
        found.append({**value, "surplus": 1})
        # A program's files, a value to redact and the like are free; what is below them is no contract.
        for name in value.keys() - {"files", "value", "expected", "schema", "of", "where", "previous", "feedback"}:
            found += [{**value, name: one} for one in (*broken(value[name]), 5, {"surplus": 1})]
    if isinstance(value, list):
        for at, item in enumerate(value):
            found += [[*value[:at], one, *value[at + 1 :]] for one in broken(item)]
        found += [[]]
    return found
