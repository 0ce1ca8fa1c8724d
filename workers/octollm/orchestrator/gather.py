"""Gathers messages into transactions: one per event reaches about a tenth of what twenty in one do.

An idle orchestrator works on a lone message at once. Under load a batch is what came while the last one ran, plus
what comes within `wait_ms`. Several lines of batches keep Postgres and this process busy at the same time: each has
tasks of its own, so that none waits for a row that another has locked.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

from octollm.orchestrator.messages import Answer, Incoming

_LOOKS = 10
"""How many times at most it is looked whether more has come."""
Handle = Callable[[Sequence[Incoming]], Awaitable[list[Answer | Exception]]]


class Gatherer:
    """TaskPool batches to `handle`, in each of `lines` one after the other."""

    def __init__(self, handle: Handle, wait_ms: int, most: int, lines: int = 1) -> None:
        self._lines = [_Line(handle, wait_ms, most) for _ in range(lines)]

    def start(self) -> None:
        """Begin to work."""
        for line in self._lines:
            line.start()

    async def stop(self) -> None:
        """End at once. Call it when nobody waits any more."""
        for line in self._lines:
            await line.stop()

    async def submit(self, message: Incoming) -> Answer:
        """What follows from the message. Raises what `handle` raised, or gave for this message."""
        task = message.id.partition(".")[0]
        return await self._lines[hash(task) % len(self._lines)].submit(message)


class _Line:
    """One batch after the other."""

    def __init__(self, handle: Handle, wait_ms: int, most: int) -> None:
        self._handle = handle
        self._wait_s = wait_ms / 1000
        self._most = most
        self._waiting: list[tuple[Incoming, asyncio.Future[Answer]]] = []
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="gather")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def submit(self, message: Incoming) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, future))
        self._some.set()
        if len(self._waiting) >= self._most:
            self._enough.set()
        return await future

    async def _run(self) -> None:
        busy = False
        while True:
            await self._some.wait()
            if busy:
                await self._company()
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            if not self._waiting:
                self._some.clear()
            if len(self._waiting) < self._most:
                self._enough.clear()
            busy = len(batch) > 1
            await self._work([one for one in batch if not one[1].done()])

    async def _company(self) -> None:
        """Waits for more, as long as more comes: where all that can come is here, waiting gives nothing."""
        until = time.monotonic() + self._wait_s
        before = 0
        while before < len(self._waiting) < self._most and time.monotonic() < until:
            before = len(self._waiting)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), self._wait_s / _LOOKS)

    async def _work(self, batch: Sequence[tuple[Incoming, asyncio.Future[Answer]]]) -> None:
        if not batch:
            return
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._handle([message for message, _ in batch])
        except Exception as error:  # noqa: BLE001  whoever waits gets it
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
