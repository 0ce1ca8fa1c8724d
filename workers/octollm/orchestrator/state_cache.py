"""Cache of running tasks' states as this process last committed them.

The next event of a task need not read them.

The locked row decides whether a cached state is current: if another orchestrator has changed the task, or an older
database was restored, the state is read again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import asyncpg
import orjson

from octollm.contracts.ids import as_text
from octollm.orchestrator.state import TaskState

_MAX_BYTES = 32 * 1024 * 1024
"""Of JSON received for the tasks: goals, inputs, outputs. As Python objects it takes a few times as much."""
_OVERHEAD_BYTES = 4096
"""Counted per task for its plan and rows."""


@dataclass(frozen=True, slots=True)
class _Cached:
    state: TaskState
    size: int


class StateCache:
    """Least recently used states are evicted first."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._states: dict[str, _Cached] = {}
        """Least recently used first."""
        self._size = 0

    def has_any(self, tasks: Iterable[str]) -> bool:
        """Whether any of these tasks is cached, so that reading only their versions may suffice."""
        return any(task in self._states for task in tasks)

    def get(self, row: asyncpg.Record) -> TaskState | None:
        """Return the state of a locked task if it is current; otherwise evict it.

        `row`: `id`, `run`, `version` and `updated_at` of the task.
        """
        cached = self._states.get(row["id"])
        if cached is None:
            return None
        state = cached.state
        if (state.run, state.version, state.updated_at) == (row["run"], row["version"], as_text(row["updated_at"])):
            return state
        self._evict(state.task)
        return None

    def put(self, states: Iterable[TaskState], received: Mapping[str, int]) -> None:
        """Cache what has just been committed. `received`: bytes received for each task with this transaction."""
        for state in states:
            before = self._evict(state.task)
            # An ended task has no next event. A large output takes too much memory, and its row may be deleted.
            if state.ended or _has_stored_output(state):
                continue
            size = (_size(state) if before is None else before.size) + received.get(state.task, 0)
            self._states[state.task] = _Cached(state, size)
            self._size += size
        while self._size > self._max_bytes:
            self._evict(next(iter(self._states)))

    def _evict(self, task: str) -> _Cached | None:
        cached = self._states.pop(task, None)
        self._size -= 0 if cached is None else cached.size
        return cached


def _has_stored_output(state: TaskState) -> bool:
    return any(row.output_sha256 or any(one.output_sha256 for one in row.early_results) for row in state.steps.values())


def _size(state: TaskState) -> int:
    """Return the size of a state that was not cached before."""
    return _OVERHEAD_BYTES + len(orjson.dumps([state.submission, [row.output for row in state.steps.values()]]))
