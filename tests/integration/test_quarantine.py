"""What a dead worker held: the guilty entry is charged, its neighbours are not."""

import asyncio

import orjson

from octollm.consumer import pool as pool_module
from octollm.contracts.ids import parse_message_id
from tests.helpers.consumers import KEYS, Member, age, consuming, dead_workers, judge
from tests.helpers.waiting import until


async def test_an_entry_that_kills_its_workers_takes_no_neighbour_with_it(redis_server, client):
    topic = judge(max_deliveries=5)
    stream = KEYS.stream(topic)
    await dead_workers(client, stream, 6, range(6))  # number 0 is the poison; it is the oldest
    for life in range(5):
        died = asyncio.Event()

        async def work(one, died=died):
            if one.input["number"] == 0:
                died.set()
                await asyncio.Event().wait()
            return {}

        member = Member(redis_server.url, client, topic, work, name=f"life{life}")

        async def died_or_given_up(died=died):
            return died.is_set() or await _length(client, KEYS.done, 6)

        await member.start()
        await until(died_or_given_up)
        await member.kill()
        await age(client, stream)
        if await client.xlen(KEYS.dead):
            break
    async with consuming(redis_server.url, client, topic, work, name="last"):
        await until(lambda: _length(client, KEYS.done, 6))
    ended = {
        parse_message_id(entry[b"id"].decode()).task[-1]: orjson.loads(entry[b"body"])["outcome"]
        for _, entry in await client.xrange(KEYS.done)
    }
    assert ended == {"0": "dead", **{str(n): "succeeded" for n in range(1, 6)}}


async def test_waiting_in_quarantine_costs_no_delivery(redis_server, client, monkeypatch):
    """Ten slow ones behind each other: who waits longer than a handler may run must not lose its lease meanwhile."""
    monkeypatch.setattr(pool_module, "_GRACE_S", 0.5)
    topic = judge(max_deliveries=3, timeout_s=6, lease_s=5)
    stream = KEYS.stream(topic)
    await dead_workers(client, stream, 8, range(8))

    async def work(_one):
        await asyncio.sleep(3.5)
        return {}

    async with (
        consuming(redis_server.url, client, topic, work, name="a"),
        consuming(redis_server.url, client, topic, work, name="b"),
    ):
        await until(lambda: _length(client, KEYS.done, 8), within_s=120)
    bodies = [orjson.loads(entry[b"body"]) for _, entry in await client.xrange(KEYS.done)]
    assert {(body["outcome"], body["delivery"]) for body in bodies} == {("succeeded", 2)}


async def _length(client, stream, length):
    return await client.xlen(stream) >= length
