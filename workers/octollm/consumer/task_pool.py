"""The coroutines that work on deliveries: started as they are needed, each works on one after another.

A task for each message costs more than many a handler. Where handlers never wait, one hand works through all that was
read without asking the event loop; as soon as one waits, the next hand goes on.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Generic, TypeVar

from octollm.supervision import Supervisor

_LONGEST_S = 0.004
"""After so long without a wait, whatever else is due in this process gets its turn: what has been worked on until then
is finished, in one call for all of it.
"""
Item = TypeVar("Item")


class TaskPool(Generic[Item]):
    """As many as items wait in `work` at once, which gets an item and the task it runs in and raises nothing itself.
    Not thread-safe: one event loop.
    """

    def __init__(
        self, work: Callable[[Item, asyncio.Task[None]], Awaitable[None]], name: str, supervisor: Supervisor
    ) -> None:
        self._work = work
        self._name = name
        self._supervisor = supervisor
        self._queue: deque[Item] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._called = False
        """Whether one has been called and has not come yet."""

    def put(self, items: Iterable[Item]) -> None:
        """Work on them as soon as the event loop runs."""
        self._queue.extend(items)
        self._call()

    async def close(self) -> None:
        """Cancel whatever they work on; what has not begun is forgotten."""
        self._queue.clear()
        self._idle.clear()
        await self._supervisor.end(list(self._tasks))

    def _call(self) -> None:
        """One more, where there is something to do and none is on its way."""
        if self._called or not self._queue:
            return
        self._called = True
        if self._idle:
            self._idle.pop().set_result(None)
            return
        task = self._supervisor.spawn_loop(self._name, self._hand())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  for mypy; this is a coroutine of one
        while True:
            self._called = False
            until = perf_counter() + _LONGEST_S
            while self._queue:
                item = self._queue.popleft()
                self._call()  # who waits in a handler must not hold up the next
                await self._work(item, task)
                if perf_counter() > until:
                    await asyncio.sleep(0)
                    until = perf_counter() + _LONGEST_S
            idle = loop.create_future()
            self._idle.append(idle)
            await idle
