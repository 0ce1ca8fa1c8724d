"""The time limit of a step: only work that waits can run into it, and its error is no other timeout."""

import asyncio

import pytest

from octollm.steps.timeout import TimeLimitError, run_with_timeout


def test_the_limit_holds_only_for_what_waits():
    async def run():
        async def at_once():
            return asyncio.current_task()

        async def waiting(gate):
            async with asyncio.timeout(60):
                await gate.wait()
            await asyncio.sleep(0)
            return "done"

        assert await run_with_timeout(0, at_once()) is asyncio.current_task()
        gate = asyncio.Event()
        asyncio.get_running_loop().call_soon(gate.set)
        assert await run_with_timeout(60, waiting(gate)) == "done"
        try:
            await run_with_timeout(0.01, waiting(asyncio.Event()))
        except TimeLimitError:
            return
        raise AssertionError("nothing ended it")

    asyncio.run(run())


def test_a_cancellation_reaches_the_work():
    async def run():
        reached = []

        async def work():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                reached.append(True)
                raise

        task = asyncio.create_task(run_with_timeout(60, work()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert reached == [True]

    asyncio.run(run())


async def test_a_timeout_of_the_work_itself_is_not_the_limit():
    async def work():
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await run_with_timeout(60, work())
