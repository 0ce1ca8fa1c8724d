"""What a dead worker held: the guilty entry is charged, its neighbours are not."""

import asyncio

import orjson
import pytest

from octollm.contracts.ids import parse_message_id
from tests.helpers.consumers import KEYS, Member, age, consuming, dead_workers, judge
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


async def _length(client, stream, length):
    return await client.xlen(stream) >= length
