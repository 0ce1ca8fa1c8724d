"""TaskPool work on every item once, pass each other by when one waits, and end what they work on when they are
closed.
"""

import asyncio
import time
from collections import deque
from typing import Any

from octollm.consumer import task_pool as hands_module
from octollm.consumer.task_pool import TaskPool
from octollm.steps.timeout import within
from octollm.supervision import Supervisor


def test_items_that_never_wait_are_worked_on_in_order_by_few_hands(monkeypatch):
    # Only what the items do calls for another hand, not how long this machine takes for them.
    monkeypatch.setattr(hands_module, "_LONGEST_S", 1e9)

    async def run():
        done = []

        async def work(item, task):
            done.append((item, task))

        hands = TaskPool(work, "work", Supervisor())
        hands.put(range(100))
        while len(done) < 100:
            await asyncio.sleep(0)
        assert [item for item, _ in done] == list(range(100))
        assert len({task for _, task in done}) <= 4
        await hands.close()

    asyncio.run(run())


def test_whatever_else_is_due_gets_its_turn_while_nothing_waits():
    async def run():
        let_in = asyncio.Event()
        given_up = time.monotonic() + 60

        async def work(item, _task):
            if item == 0:
                asyncio.get_running_loop().call_soon(let_in.set)
            if not let_in.is_set() and time.monotonic() < given_up:
                hands.put([item + 1])  # there is always more to do

        hands = TaskPool(work, "work", Supervisor())
        hands.put([0])
        async with asyncio.timeout(30):
            await let_in.wait()
        await hands.close()

    asyncio.run(run())


def test_one_that_waits_does_not_hold_up_the_others():
    async def run():
        gates = {number: asyncio.Event() for number in range(50)}
        done = []

        async def work(item, _task):
            await gates[item].wait()
            done.append(item)

        hands = TaskPool(work, "work", Supervisor())
        hands.put(range(25))
        hands.put(range(25, 50))
        for number in reversed(range(50)):
            gates[number].set()
            while number not in done:
                await asyncio.sleep(0)
        assert done == list(reversed(range(50)))
        hands.put([])
        await hands.close()

    asyncio.run(run())


def test_what_waits_is_cancelled_by_closing_and_the_rest_forgotten():
    async def run():
        seen: deque[Any] = deque()

        async def work(item, _task):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append(item)
                raise

        hands = TaskPool(work, "work", Supervisor())
        hands.put(range(3))
        for _ in range(10):
            await asyncio.sleep(0)
        await hands.close()
        assert sorted(seen) == [0, 1, 2]

    asyncio.run(run())


def test_a_limit_holds_only_for_what_waits():
    async def run():
        async def at_once():
            return asyncio.current_task()

        async def patient(gate):
            async with asyncio.timeout(60):
                await gate.wait()
            await asyncio.sleep(0)
            return "done"

        assert await within(0, at_once()) is asyncio.current_task()
        gate = asyncio.Event()
        asyncio.get_running_loop().call_soon(gate.set)
        assert await within(60, patient(gate)) == "done"
        try:
            await within(0.01, patient(asyncio.Event()))
        except TimeoutError:
            return
        raise AssertionError("nothing ended it")

    asyncio.run(run())


def test_a_cancellation_reaches_what_waits():
    async def run():
        reached = []

        async def work():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                reached.append(True)
                raise

        task = asyncio.create_task(within(60, work()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert reached == [True]

    asyncio.run(run())
