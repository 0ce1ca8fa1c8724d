"""What a consumer does with the entries of dead workers: ordinary slots, and isolation of suspects."""

import asyncio
from functools import partial
from typing import Any

import pytest

from octollm.contracts import StepRequested
from tests.helpers.consumers import KEYS, Member, consuming, fields, has_length, judge, outcomes, step
from tests.helpers.waiting import until


@pytest.fixture
def url(redis_server) -> str:
    return str(redis_server.url)


async def left_by_the_dead(client, stream: str, deliveries: list[int]) -> None:
    """Entries of the numbers from 0, delivered so often, whose lease has ended."""
    await client.xgroup_create(stream, "judge", "0", mkstream=True)
    for number in range(len(deliveries)):
        await client.xadd(stream, fields(step(number)))
    await client.xreadgroup("judge", "killed", {stream: ">"}, count=len(deliveries))
    pending = await client.xpending_range(stream, "judge", "-", "+", 100)
    for one, count in zip(pending, deliveries, strict=True):
        await client.xclaim(stream, "judge", "killed", 0, [one["message_id"]], idle=5000, retrycount=count)


async def test_what_a_dead_worker_held_takes_half_of_the_slots_next_to_new_work(url, client):
    topic = judge()
    stream = KEYS.stream(topic)
    await left_by_the_dead(client, stream, [1] * 20)
    for number in range(100, 104):
        await client.xadd(stream, fields(step(number)))
    begun: list[int] = []
    go = asyncio.Event()

    async def work(one: StepRequested) -> dict[str, Any]:
        begun.append(one.input["number"])
        await go.wait()
        return {}

    async def have_begun(many: int) -> bool:
        return len(begun) == many

    async with consuming(url, client, topic, work):
        await until(partial(have_begun, 8))
        assert sorted(begun) == [0, 1, 2, 3, 100, 101, 102, 103]
        for many in (12, 16, 20, 24):
            now, go = go, asyncio.Event()
            now.set()
            await until(partial(have_begun, many))
        go.set()
        await until(lambda: has_length(client, KEYS.done, 24))
    assert sorted(body["delivery"] for body in await outcomes(client)) == [1] * 4 + [2] * 20


@pytest.mark.parametrize(("most", "deliveries"), [(5, [1, 1, 1, 2, 1, 1, 3, 1, 1]), (3, [0, 1, 1, 2, 1, 1, 2, 1, 1])])
async def test_what_was_delivered_twice_is_isolated(url, client, most: int, deliveries: list[int]):
    topic = judge(max_deliveries=most)
    stream = KEYS.stream(topic)
    await left_by_the_dead(client, stream, deliveries)
    running: set[int] = set()
    together: list[set[int]] = []

    async def work(one: StepRequested) -> dict[str, Any]:
        running.add(one.input["number"])
        await asyncio.sleep(0.05)
        together.append(set(running))
        running.discard(one.input["number"])
        return {}

    async with consuming(url, client, topic, work):
        await until(lambda: has_length(client, KEYS.done, 9))
    assert [body["delivery"] for body in sorted(await outcomes(client), key=lambda body: body["task"])] == [
        count + 1 for count in deliveries
    ]
    assert [each for each in together if each & {3, 6}] == [{3}, {6}]
    assert any(len(each) > 1 for each in together)


async def test_a_suspect_stops_nobody_for_as_long_as_a_step_runs(url, client):
    """Three suspects and a step without an end: new steps go on beginning, and each suspect comes to its turn."""
    topic = judge(max_deliveries=5, timeout_s=60)
    stream = KEYS.stream(topic)
    await left_by_the_dead(client, stream, [2, 2, 2])
    ended: list[int] = []
    long_runs = asyncio.Event()

    async def work(one: StepRequested) -> dict[str, Any]:
        if one.input["number"] == 50:
            long_runs.set()
            await asyncio.Event().wait()
        ended.append(one.input["number"])
        return {}

    async def have_ended(*numbers: int) -> bool:
        return set(numbers) <= set(ended)

    await client.xadd(stream, fields(step(50)))
    member = Member(url, client, topic, work)
    await member.start()
    try:
        await asyncio.wait_for(long_runs.wait(), 60)
        for number in range(100, 120):
            await client.xadd(stream, fields(step(number)))
            await until(partial(have_ended, number))
        await until(partial(have_ended, 0, 1, 2))
    finally:
        await member.stop(drain_s=0)


async def test_where_two_deliveries_are_all_there_are_each_is_isolated(url, client):
    topic = judge(max_deliveries=2)
    await left_by_the_dead(client, KEYS.stream(topic), [1] * 6)
    running = 0

    async def work(_one: StepRequested) -> dict[str, Any]:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.01)
        running -= 1
        return {}

    async with consuming(url, client, topic, work):
        await until(lambda: has_length(client, KEYS.done, 6))
    assert [body["outcome"] for body in await outcomes(client)] == ["succeeded"] * 6
