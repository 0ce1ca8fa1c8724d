"""The plan of a run: steps, what each needs, what makes the answer, and how often a failed verdict is repaired. Pure.

A plan is stored with its run, so that a changed recipe never changes a task that has begun.
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
    """One step: for which arm, after which others, with which input (references unresolved)."""

    name: str
    arm: str
    needs: tuple[str, ...]
    timeout_s: int
    input: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Repair:
    """When the judge step `judge` gives the verdict "fail", `redo` and everything after it run again, `max` times."""

    judge: str
    redo: str
    max: int


@dataclass(frozen=True)
class Plan:
    """A directed acyclic graph of steps. Made and checked in `checks.py`."""

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
    """Template of what memory keeps of the task when it succeeded."""
    planner: str | None = None
    """The step whose output brings the steps that follow it; None: the plan is whole from the start."""

    @cached_property
    def by_name(self) -> Mapping[str, PlanStep]:
        """Step by its name."""
        return {step.name: step for step in self.steps}

    @cached_property
    def sole_needs(self) -> frozenset[str]:
        """Steps that are all that some other step needs."""
        return frozenset(step.needs[0] for step in self.steps if len(step.needs) == 1)

    @cached_property
    def written(self) -> bytes:
        """JSON of `to_json`. All tasks of a kind share the recipe's plan."""
        return orjson.dumps(self.to_json())

    def downstream(self, name: str) -> tuple[str, ...]:
        """The step itself and all that need it, directly or not, in the plan's order."""
        found = {name}
        for step in self.steps:
            if found & set(step.needs):
                found.add(step.name)
        return tuple(step.name for step in self.steps if step.name in found)

    def upstream(self, name: str) -> frozenset[str]:
        """All steps that have ended when this one starts."""
        found: set[str] = set()
        todo = list(self.by_name[name].needs)
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo += self.by_name[one].needs
        return frozenset(found)

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
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
        """The opposite of `to_json`."""
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
            # Absent in what was stored before there were such.
            memory=stored.get("memory"),
            planner=stored.get("planner"),
        )


def in_order(steps: Mapping[str, PlanStep]) -> tuple[PlanStep, ...]:
    """The steps in an order in which they could run. Raises RecipeError on a need that is no step, and on a circle."""
    for step in steps.values():
        for need in step.needs:
            if need not in steps:
                raise RecipeError(f"step {step.name} needs {need}, which is no step of this plan")
    try:
        names = tuple(TopologicalSorter({step.name: step.needs for step in steps.values()}).static_order())
    except CycleError as error:
        raise RecipeError(f"steps need each other in a circle: {' -> '.join(error.args[1])}") from error
    return tuple(steps[name] for name in names)
