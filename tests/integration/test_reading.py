"""How much a consumer asks for at a time, and of which stream."""

import asyncio

import pytest

from octollm.consumer import reader
from tests.helpers.consumers import KEYS, consuming, fields, judge, step
from tests.helpers.waiting import until


class Gated:
    """An arm whose steps go on one by one, and the numbers in the order of starting."""

    def __init__(self):
        self.started = []
        self.gates = []
        self.opened = False

    async def __call__(self, one):
        self.started.append(one.input["number"])
        self.gates.append(gate := asyncio.Event())
        if not self.opened:
            await gate.wait()
        return {}

    def open(self):
        self.opened = True
        for gate in self.gates:
            gate.set()

    async def has(self, count):
        return len(self.started) == count


async def fill(client, priority, numbers):
    for number in numbers:
        await client.xadd(KEYS.stream(judge(), priority), fields(step(number, priority=priority)))


async def reads(client):
    return (await client.info("commandstats"))["cmdstat_xreadgroup"]["calls"]


@pytest.mark.parametrize(("seconds", "fourth"), [(1e9, 4), (0, 9)])
async def test_a_stream_that_alone_has_work_gets_all_slots_but_not_for_long(
    redis_server, client, monkeypatch, seconds, fourth
):
    monkeypatch.setattr(reader, "_SINGLE_STREAM_S", seconds)
    arm = Gated()
    await fill(client, "normal", [1, 2, 3, 4])
    async with consuming(redis_server.url, client, judge(), arm, concurrency=3):
        await until(lambda: arm.has(3))
        await fill(client, "high", [9])
        arm.gates[0].set()
        await until(lambda: arm.has(4))
        arm.open()
    assert arm.started[:4] == [1, 2, 3, fourth]


async def test_work_on_one_stream_is_read_without_shares_for_the_others(redis_server, client, monkeypatch):
    monkeypatch.setattr(reader, "_SINGLE_STREAM_S", 1e9)
    await client.config_resetstat()
    arm = Gated()
    await fill(client, "normal", range(1, 20))
    async with consuming(redis_server.url, client, judge(), arm, concurrency=12):
        await until(lambda: arm.has(12))
        # A third of the slots, as its share of three streams, and then all that was left.
        assert await reads(client) == 2
        arm.open()
