"""The task pool works on every item once, goes on while an item waits, and cancels what runs when it is closed."""

import asyncio
import time
from collections import deque
from typing import Any

from octollm.consumer import task_pool as module
from octollm.consumer.task_pool import TaskPool
from octollm.supervision import Supervisor


def test_items_that_never_wait_are_worked_on_in_order_by_few_tasks(monkeypatch):
    # Only an await of an item calls for another task, not how long this machine takes.
    monkeypatch.setattr(module, "_LONGEST_S", 1e9)

    async def run():
        done = []

        async def work(item, task):
            done.append((item, task))

        pool = TaskPool(work, "work", Supervisor())
        pool.put(range(100))
        while len(done) < 100:
            await asyncio.sleep(0)
        assert [item for item, _ in done] == list(range(100))
        assert len({task for _, task in done}) <= 4
        await pool.close()

    asyncio.run(run())


def test_other_work_gets_its_turn_while_no_item_waits():
    async def run():
        turn = asyncio.Event()
        given_up = time.monotonic() + 60

        async def work(item, _task):
            if item == 0:
                asyncio.get_running_loop().call_soon(turn.set)
            if not turn.is_set() and time.monotonic() < given_up:
                pool.put([item + 1])  # there is always more to do

        pool = TaskPool(work, "work", Supervisor())
        pool.put([0])
        async with asyncio.timeout(30):
            await turn.wait()
        await pool.close()

    asyncio.run(run())


def test_an_item_that_waits_does_not_hold_up_the_others():
    async def run():
        gates = {number: asyncio.Event() for number in range(50)}
        done = []

        async def work(item, _task):
            await gates[item].wait()
            done.append(item)

        pool = TaskPool(work, "work", Supervisor())
        pool.put(range(25))
        pool.put(range(25, 50))
        for number in reversed(range(50)):
            gates[number].set()
            while number not in done:
                await asyncio.sleep(0)
        assert done == list(reversed(range(50)))
        pool.put([])
        await pool.close()

    asyncio.run(run())


def test_closing_cancels_what_waits_and_drops_the_rest():
    async def run():
        seen: deque[Any] = deque()

        async def work(item, _task):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append(item)
                raise

        pool = TaskPool(work, "work", Supervisor())
        pool.put(range(3))
        for _ in range(10):
            await asyncio.sleep(0)
        await pool.close()
        assert sorted(seen) == [0, 1, 2]

    asyncio.run(run())
