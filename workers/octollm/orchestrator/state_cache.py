"""States of running tasks as this process has last committed them, so that the next event need not read them again.

They decide nothing by themselves: the row that is locked says whether a held state is still the task's. Where another
orchestrator has changed the task, or an older database was restored, it is read anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import asyncpg
import orjson

from octollm.contracts.ids import as_text
from octollm.orchestrator.state import TaskState

_MOST_BYTES = 32 * 1024 * 1024
"""Of what came in for the tasks: goals, inputs, outputs. As objects of Python they take a few times as much."""
_OVERHEAD = 4096
"""Bytes that count for a task besides: its plan and its rows."""


@dataclass(frozen=True, slots=True)
class _Held:
    state: TaskState
    size: int


class HeldStates:
    """Of one orchestrator. Bounded: what was used longest ago is forgotten first."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most_bytes
        self._held: dict[str, _Held] = {}
        """Oldest first."""
        self._size = 0

    def any_of(self, tasks: Iterable[str]) -> bool:
        """Whether it is worth asking for the rows alone."""
        return any(task in self._held for task in tasks)

    def of(self, row: asyncpg.Record) -> TaskState | None:
        """The state of a locked task with `id`, `run`, `version` and `updated_at`, if it is the one that is held; one
        that is no longer the task's is forgotten.
        """
        held = self._held.get(row["id"])
        if held is None:
            return None
        state = held.state
        if (state.run, state.version, state.updated_at) == (row["run"], row["version"], as_text(row["updated_at"])):
            return state
        self._forget(state.task)
        return None

    def keep(self, states: Iterable[TaskState], came: Mapping[str, int]) -> None:
        """Hold what has just been committed. `came`: bytes that came in for each task with this transaction."""
        for state in states:
            before = self._forget(state.task)
            # Nothing follows; or an output is too large to be held many times, and its row may be gone by now.
            if state.ended or _has_large(state):
                continue
            size = (_size(state) if before is None else before.size) + came.get(state.task, 0)
            self._held[state.task] = _Held(state, size)
            self._size += size
        while self._size > self._most:
            self._forget(next(iter(self._held)))

    def _forget(self, task: str) -> _Held | None:
        held = self._held.pop(task, None)
        self._size -= 0 if held is None else held.size
        return held


def _has_large(state: TaskState) -> bool:
    return any(row.output_sha256 or any(one.output_sha256 for one in row.early_results) for row in state.steps.values())


def _size(state: TaskState) -> int:
    """Of a state that was not held before."""
    return _OVERHEAD + len(orjson.dumps([state.submission, [row.output for row in state.steps.values()]]))
