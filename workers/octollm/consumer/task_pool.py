"""Tasks that work through a queue of items; as many are started as items wait at the same time.

Creating an asyncio task per message costs more than most handlers. One task works on items back to back until an item
awaits; then another task goes on with the queue.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Generic, TypeVar

from octollm.supervision import Supervisor

_LONGEST_S = 0.004
"""After this long without an await, the other work of the process gets its turn: what has been worked on until then is
committed, in one call for all of it.
"""
Item = TypeVar("Item")


class TaskPool(Generic[Item]):
    """Runs `work` on items that are put in. Not thread-safe: one event loop."""

    def __init__(
        self, work: Callable[[Item, asyncio.Task[None]], Awaitable[None]], name: str, supervisor: Supervisor
    ) -> None:
        """`work` gets an item and the task that runs it. An exception out of it ends the process."""
        self._work = work
        self._name = name
        self._supervisor = supervisor
        self._queue: deque[Item] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking = False
        """Whether a task has been started or woken and does not run yet."""

    def put(self, items: Iterable[Item]) -> None:
        """Work on these items as soon as the event loop runs."""
        self._queue.extend(items)
        self._wake()

    def drop_queued(self) -> None:
        """Drop the items that have not begun."""
        self._queue.clear()

    async def close(self, timeout_s: float = math.inf) -> None:
        """Cancel the items that are worked on, and drop those that have not begun.

        Waits up to `timeout_s` for work that ignores its cancellation.
        """
        self._queue.clear()
        self._idle.clear()
        await self._supervisor.end(list(self._tasks), timeout_s)

    def _wake(self) -> None:
        """Let one more task run, where there is an item for it and none is about to run."""
        if self._waking or not self._queue:
            return
        self._waking = True
        if self._idle:
            self._idle.pop().set_result(None)
            return
        task = self._supervisor.spawn_loop(self._name, self._run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for mypy; this is a coroutine of one
        while True:
            self._waking = False
            until = perf_counter() + _LONGEST_S
            while self._queue:
                item = self._queue.popleft()
                self._wake()  # an item that awaits must not hold up the next one
                await self._work(item, task)
                if perf_counter() > until:
                    await asyncio.sleep(0)
                    until = perf_counter() + _LONGEST_S
            idle = loop.create_future()
            self._idle.append(idle)
            await idle
