"""What a dead worker held: the guilty entry is charged, its neighbours are not."""

import asyncio

import orjson
import pytest

from octollm.contracts.ids import parse_message_id
from octollm.protocol.handoff import Handoff
from tests.helpers.consumers import CLAIM_ALL, KEYS, Member, age, consuming, dead_workers, fields, judge, step
from tests.helpers.waiting import until


@pytest.mark.parametrize("most", [2, 3, 5])
@pytest.mark.parametrize("poison", [{0}, {0, 3}, {1, 2, 5}], ids=len)
async def test_entries_that_kill_their_workers_take_no_neighbour_with_them(redis_server, client, poison, most):
    topic = judge(max_deliveries=most)
    stream = KEYS.stream(topic)
    await dead_workers(client, stream, 6, range(6))
    for life in range(most * len(poison)):
        died = asyncio.Event()

        async def work(one, died=died):
            if one.input["number"] in poison:
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
        if await client.xlen(KEYS.dead) == len(poison):
            break
    async with consuming(redis_server.url, client, topic, work, name="last"):
        await until(lambda: _length(client, KEYS.done, 6))
    ended = {
        parse_message_id(entry[b"id"].decode()).task[-1]: orjson.loads(entry[b"body"])["outcome"]
        for _, entry in await client.xrange(KEYS.done)
    }
    assert ended == {str(n): "dead" if n in poison else "succeeded" for n in range(6)}


@pytest.mark.parametrize("last_comes_first", [True, False])
async def test_a_last_delivery_is_claimed_with_nothing_else_that_began_before(client, last_comes_first):
    """If what runs next to it killed the worker, it would become a dead letter without having run alone."""
    topic = judge(max_deliveries=3)
    stream = KEYS.stream(topic)
    await client.xgroup_create(stream, topic.group, "0", mkstream=True)
    first, next_one, other = [await client.xadd(stream, fields(step(number))) for number in range(3)]
    last, second = (first, next_one) if last_comes_first else (next_one, first)
    await client.xreadgroup(topic.group, "dead", {stream: ">"})
    idle_ms = topic.lease_s * 1000 + 1
    await client.xclaim(stream, topic.group, "dead", 0, [last, other], idle=idle_ms, retrycount=2, justid=True)
    await client.xclaim(stream, topic.group, "dead", 0, [second], idle=idle_ms, retrycount=1, justid=True)
    survivor = Handoff(client, "l0", topic.group, "survivor")
    if last_comes_first:
        steps = [(False, [second]), (True, [last]), (True, [other])]
    else:
        steps = [(True, [second]), (True, [last]), (True, [other])]
    for allowed, claimed in steps:
        entries, _, _ = await survivor.claim(stream, topic, CLAIM_ALL._replace(last=allowed))
        assert [entry.id for entry in entries] == [one.decode() for one in claimed]


async def _length(client, stream, length):
    return await client.xlen(stream) >= length
