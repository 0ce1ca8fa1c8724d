"""The plan of a run: its steps and their dependencies, the answer's template, and the repair rule.

Pure.

A plan is stored with its run, so that a changed recipe never changes a task that has started.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

import orjson

from octollm.errors import RecipeError


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step: its arm, the steps it needs, and its input with references unresolved."""

    name: str
    arm: str
    needs: tuple[str, ...]
    timeout_s: int
    input: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Repair:
    """If the step `judge` gives the verdict "fail", `redo` and every step after it run again, at most `max` times."""

    judge: str
    redo: str
    max: int


@dataclass(frozen=True)
class Plan:
    """A directed acyclic graph of steps. Built and checked in `checks.py`."""

    recipe: str
    version: int
    steps: tuple[PlanStep, ...]
    """In an order in which they could run."""
    answer: Any
    """Template of the task's answer."""
    judges: tuple[str, ...]
    """Steps whose verdict "fail" ends the task or opens a repair round."""
    repair: Repair | None = None
    memory: Mapping[str, Any] | None = None
    """Template of what the task writes to memory when it succeeds."""
    planner: str | None = None
    """The step whose output is the rest of the plan; None: the plan is complete from the start."""

    @cached_property
    def by_name(self) -> Mapping[str, PlanStep]:
        """Steps by name."""
        return {step.name: step for step in self.steps}

    @cached_property
    def sole_needs(self) -> frozenset[str]:
        """Steps that are the only need of another step."""
        return frozenset(step.needs[0] for step in self.steps if len(step.needs) == 1)

    @cached_property
    def written(self) -> bytes:
        """`to_json` as bytes, computed once: all tasks of a kind share the recipe's plan."""
        return orjson.dumps(self.to_json())

    def downstream(self, name: str) -> tuple[str, ...]:
        """Return the step and all steps that need it, directly or not, in the plan's order."""
        found = {name}
        for step in self.steps:
            if found & set(step.needs):
                found.add(step.name)
        return tuple(step.name for step in self.steps if step.name in found)

    def upstream(self, name: str) -> frozenset[str]:
        """Return all steps that this one needs, directly or not."""
        found: set[str] = set()
        todo = list(self.by_name[name].needs)
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo += self.by_name[one].needs
        return frozenset(found)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as it is stored."""
        return {
            "recipe": self.recipe,
            "version": self.version,
            "steps": [
                {
                    "name": step.name,
                    "arm": step.arm,
                    "needs": list(step.needs),
                    "timeout_s": step.timeout_s,
                    "input": step.input,
                }
                for step in self.steps
            ],
            "answer": self.answer,
            "judges": list(self.judges),
            "repair": None
            if self.repair is None
            else {"judge": self.repair.judge, "redo": self.repair.redo, "max": self.repair.max},
            "memory": self.memory,
            "planner": self.planner,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Plan":
        """Return the plan from what `to_json` returned."""
        return cls(
            recipe=stored["recipe"],
            version=stored["version"],
            steps=tuple(
                PlanStep(step["name"], step["arm"], tuple(step["needs"]), step["timeout_s"], step["input"])
                for step in stored["steps"]
            ),
            answer=stored["answer"],
            judges=tuple(stored["judges"]),
            repair=None if stored["repair"] is None else Repair(**stored["repair"]),
            memory=stored["memory"],
            planner=stored["planner"],
        )


def in_order(steps: Mapping[str, PlanStep]) -> tuple[PlanStep, ...]:
    """Return the steps in an order in which they can run.

    Raises RecipeError for an unknown need or a cycle.
    """
    for step in steps.values():
        for need in step.needs:
            if need not in steps:
                raise RecipeError(f"step {step.name} needs {need}, which is no step of this plan")
    try:
        names = tuple(TopologicalSorter({step.name: step.needs for step in steps.values()}).static_order())
    except CycleError as error:
        raise RecipeError(f"steps need each other in a cycle: {' -> '.join(error.args[1])}") from error
    return tuple(steps[name] for name in names)
