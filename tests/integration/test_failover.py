"""A Redis that is there and does not take writes: waited out, at no cost to the message."""

import asyncio

import orjson

from octollm.protocol.outcomes import REDIS_ERRORS
from tests.helpers.consumers import KEYS, consuming, fields, judge, step
from tests.helpers.waiting import until


async def test_a_completion_waits_while_redis_is_a_read_only_replica(redis_server, client):
    topic = judge(lease_s=60)
    errors = REDIS_ERRORS.labels(topic.name, "complete")._value
    await client.xadd(KEYS.stream(topic), fields(step()))
    started, go_on = asyncio.Event(), asyncio.Event()
    runs = 0

    async def work(_one):
        nonlocal runs
        runs += 1
        started.set()
        await go_on.wait()
        return {}

    async with consuming(redis_server.url, client, topic, work):
        await asyncio.wait_for(started.wait(), 60)
        await client.execute_command("REPLICAOF", "127.0.0.1", "1")
        before = errors.get()
        go_on.set()

        async def refused():
            return errors.get() > before

        await until(refused)
        await client.execute_command("REPLICAOF", "NO", "ONE")

        async def done():
            return await client.xlen(KEYS.done) == 1

        await until(done)
    ((_, entry),) = await client.xrange(KEYS.done)
    assert (orjson.loads(entry[b"body"])["delivery"], runs) == (1, 1)
