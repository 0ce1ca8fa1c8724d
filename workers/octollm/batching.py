"""Collects single items into batches for a handler.

Twenty messages in one transaction cost little more than one.

An idle batcher hands a lone item on at once. Under load a batch is what arrived while the previous one ran, plus what
arrives within a short wait. Partitions run at the same time, which keeps the database and this process busy together.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from octollm.supervision import Supervisor

Item = TypeVar("Item")
Answer = TypeVar("Answer")
BatchHandler = Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]]
"""Returns an answer, or an exception to raise, for each item in order; what it raises itself concerns all of them."""
_CHECKS_PER_WAIT = 10
"""How many times per wait a batcher checks whether more items have arrived."""


class Batcher(Generic[Item, Answer]):
    """Passes items to a handler in batches, one batch at a time in each partition."""

    def __init__(
        self,
        handle: BatchHandler[Item, Answer],
        key: Callable[[Item], str],
        *,
        wait_ms: int,
        max_size: int,
        partitions: int = 1,
    ) -> None:
        """`key`: items with the same key are in one partition, so never in two batches at the same time.

        `wait_ms`: longest wait for more items after a batch of several; `max_size`: most items in a batch.
        """
        self._key = key
        self._partitions = [_Partition(handle, wait_ms / 1000, max_size) for _ in range(partitions)]
        self._supervisor: Supervisor | None = None
        self._loops: list[asyncio.Task[None]] = []

    def start(self, supervisor: Supervisor, name: str) -> None:
        """Start a loop for each partition, owned by `supervisor`; `name` is in its reports."""
        self._supervisor = supervisor
        for number, partition in enumerate(self._partitions):
            self._loops.append(supervisor.spawn_loop(f"batch {name} {number}", partition.run()))

    async def stop(self) -> None:
        """End the loops at once. Call it when no `submit` is waiting any longer."""
        if self._supervisor is not None:
            await self._supervisor.end(self._loops)

    async def submit(self, item: Item) -> Answer:
        """Return the handler's answer for this item. Raises what the handler raised or returned for it."""
        return await self._partitions[hash(self._key(item)) % len(self._partitions)].submit(item)


class _Partition(Generic[Item, Answer]):
    def __init__(self, handle: BatchHandler[Item, Answer], wait_s: float, max_size: int) -> None:
        self._handle = handle
        self._wait_s = wait_s
        self._max_size = max_size
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._not_empty = asyncio.Event()
        self._full = asyncio.Event()

    async def submit(self, item: Item) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._not_empty.set()
        if len(self._waiting) >= self._max_size:
            self._full.set()
        return await future

    async def run(self) -> None:
        under_load = False
        while True:
            await self._not_empty.wait()
            if under_load:
                await self._wait_for_more()
            batch, self._waiting = self._waiting[: self._max_size], self._waiting[self._max_size :]
            if not self._waiting:
                self._not_empty.clear()
            if len(self._waiting) < self._max_size:
                self._full.clear()
            under_load = len(batch) > 1
            await self._run_batch([one for one in batch if not one[1].done()])

    async def _wait_for_more(self) -> None:
        """Wait as long as items keep arriving: once all that can arrive is here, waiting gains nothing."""
        deadline = time.monotonic() + self._wait_s
        before = 0
        while before < len(self._waiting) < self._max_size and time.monotonic() < deadline:
            before = len(self._waiting)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._wait_s / _CHECKS_PER_WAIT)

    async def _run_batch(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        if not batch:
            return
        answers: Sequence[Answer | Exception]
        try:
            answers = await self._handle([item for item, _ in batch])
            if len(answers) != len(batch):
                raise ValueError(f"the handler returned {len(answers)} answers for {len(batch)} items")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001  raised by each `submit` that waits
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
