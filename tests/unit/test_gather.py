"""Batches of the orchestrator: what comes together is worked on together, and a task's messages never side by side."""

import asyncio
from collections.abc import Sequence

import pytest

from octollm.orchestrator.gather import Gatherer
from octollm.orchestrator.messages import Answer, Incoming, Outgoing


def message(task: str, number: int = 0) -> Incoming:
    return Incoming("step.done.v1", f"{task}.1.step.0.{number}", "default", "", b"", "")


class Worked:
    """A handler that ends a batch when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.running: set[str] = set()
        self.begun = asyncio.Condition()
        self.go = asyncio.Semaphore(0)

    async def __call__(self, messages: Sequence[Incoming]) -> list[Answer | Exception]:
        tasks = {one.id.partition(".")[0] for one in messages}
        assert not tasks & self.running, "two transactions want the same row"
        self.running |= tasks
        self.batches.append([one.id for one in messages])
        async with self.begun:
            self.begun.notify_all()
        await self.go.acquire()
        self.running -= tasks
        return [ValueError(one.id) if one.id.startswith("bad") else Outgoing(traceparent=one.id) for one in messages]

    async def until(self, batches: int) -> None:
        async with asyncio.timeout(60), self.begun:
            await self.begun.wait_for(lambda: len(self.batches) >= batches)


def submit(gatherer: Gatherer, *messages: Incoming) -> list[asyncio.Task[Answer]]:
    return [asyncio.create_task(gatherer.submit(one)) for one in messages]


async def test_what_comes_while_a_batch_runs_is_the_next_one_and_none_is_longer_than_allowed():
    worked = Worked()
    gatherer = Gatherer(worked, wait_ms=20, most=3)
    gatherer.start()
    first = submit(gatherer, message("a"))
    await worked.until(1)
    later = submit(gatherer, *(message("b", number) for number in range(5)))
    for _ in range(3):
        worked.go.release()
    answers = await asyncio.gather(*first, *later)
    assert [len(batch) for batch in worked.batches] == [1, 3, 2]
    assert [one.traceparent for one in answers if isinstance(one, Outgoing)] == [
        "a.1.step.0.0",
        *(f"b.1.step.0.{number}" for number in range(5)),
    ]
    await gatherer.stop()


async def test_lines_work_side_by_side_but_never_on_one_task():
    worked = Worked()
    gatherer = Gatherer(worked, wait_ms=20, most=1, lines=2)
    gatherer.start()
    tasks = [f"task-{number}" for number in range(20)]
    waiting = submit(gatherer, *(message(task, number) for number in range(3) for task in tasks))
    await worked.until(2)  # both lines have one, and neither has ended
    assert len(worked.running) == 2
    for _ in waiting:
        worked.go.release()
    await asyncio.gather(*waiting)
    order = [batch[0] for batch in worked.batches]
    for task in tasks:
        assert [one for one in order if one.startswith(f"{task}.")] == [f"{task}.1.step.0.{n}" for n in range(3)]
    await gatherer.stop()


async def test_each_gets_its_own_answer_or_error_and_a_broken_handler_breaks_the_batch_alone():
    worked = Worked()
    gatherer = Gatherer(worked, wait_ms=0, most=10)
    gatherer.start()
    good, bad = submit(gatherer, message("good"), message("bad"))
    worked.go.release()
    assert (await good).traceparent == "good.1.step.0.0"
    with pytest.raises(ValueError, match="bad"):
        await bad
    await gatherer.stop()

    async def breaks(_messages: Sequence[Incoming]) -> list[Answer | Exception]:
        raise OSError("away")

    gatherer = Gatherer(breaks, wait_ms=0, most=10)
    gatherer.start()
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            await gatherer.submit(message("any"))
    await gatherer.stop()
