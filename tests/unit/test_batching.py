"""Batches: items that arrive together are handled together, and those with one key never concurrently."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from octollm.batching import Batcher, BatchHandler
from octollm.supervision import Supervisor


class Recorded:
    """A handler that ends a batch when it is asked to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.running: set[str] = set()
        self.begun = asyncio.Condition()
        self.go = asyncio.Semaphore(0)

    async def __call__(self, items: Sequence[str]) -> list[str | Exception]:
        keys = {task_of(one) for one in items}
        assert not keys & self.running, "two transactions want the same row"
        self.running |= keys
        self.batches.append(list(items))
        async with self.begun:
            self.begun.notify_all()
        await self.go.acquire()
        self.running -= keys
        return [ValueError(one) if one.startswith("bad") else one.upper() for one in items]

    async def until(self, batches: int) -> None:
        async with asyncio.timeout(60), self.begun:
            await self.begun.wait_for(lambda: len(self.batches) >= batches)


def task_of(item: str) -> str:
    return item.partition(".")[0]


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    made = Supervisor()
    yield made
    assert made.failure is None
    await made.stop()


def started(
    supervisor: Supervisor, handle: BatchHandler[str, str], wait_ms: int, max_size: int, partitions: int = 1
) -> Batcher[str, str]:
    batcher: Batcher[str, str] = Batcher(handle, task_of, wait_ms=wait_ms, max_size=max_size, partitions=partitions)
    batcher.start(supervisor, "test")
    return batcher


def submit(batcher: Batcher[str, str], *items: str) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(batcher.submit(one)) for one in items]


async def test_items_that_arrive_during_a_batch_are_the_next_one_up_to_the_maximum(supervisor):
    recorded = Recorded()
    batcher = started(supervisor, recorded, wait_ms=20, max_size=3)
    first = submit(batcher, "a.0")
    await recorded.until(1)
    later = submit(batcher, *(f"b.{number}" for number in range(5)))
    for _ in range(3):
        recorded.go.release()
    answers = await asyncio.gather(*first, *later)
    assert [len(batch) for batch in recorded.batches] == [1, 3, 2]
    assert answers == ["A.0", *(f"B.{number}" for number in range(5))]


async def test_partitions_run_concurrently_but_never_with_one_key(supervisor):
    recorded = Recorded()
    batcher = started(supervisor, recorded, wait_ms=20, max_size=1, partitions=2)
    tasks = [f"task-{number}" for number in range(20)]
    waiting = submit(batcher, *(f"{task}.{number}" for number in range(3) for task in tasks))
    await recorded.until(2)  # both partitions have a batch, and neither has ended
    assert len(recorded.running) == 2
    for _ in waiting:
        recorded.go.release()
    await asyncio.gather(*waiting)
    order = [batch[0] for batch in recorded.batches]
    for task in tasks:
        assert [one for one in order if one.startswith(f"{task}.")] == [f"{task}.{n}" for n in range(3)]


async def test_each_item_gets_its_own_answer_or_error(supervisor):
    recorded = Recorded()
    batcher = started(supervisor, recorded, wait_ms=0, max_size=10)
    good, bad = submit(batcher, "good", "bad")
    recorded.go.release()
    assert await good == "GOOD"
    with pytest.raises(ValueError, match="bad"):
        await bad


async def _raises(_items: Sequence[str]) -> list[str | Exception]:
    raise OSError("away")


async def _answers_too_much(items: Sequence[str]) -> list[str | Exception]:
    return [*items, "one more"]


@pytest.mark.parametrize(
    ("handle", "error"), [(_raises, OSError), (_answers_too_much, ValueError)], ids=["raises", "answers too much"]
)
async def test_a_failed_batch_affects_no_later_one(supervisor, handle, error):
    batcher = started(supervisor, handle, wait_ms=0, max_size=10)
    for _ in range(2):
        with pytest.raises(error):
            await asyncio.wait_for(batcher.submit("any"), 60)
