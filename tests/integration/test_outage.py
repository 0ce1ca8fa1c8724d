"""Postgres is unavailable for longer than a handler may run: no delivery is charged, and no work is repeated."""

import asyncio

import orjson

from octollm.consumer import pool as pool_module
from octollm.errors import StoreUnavailableError
from tests.helpers.consumers import KEYS, consuming, fields, judge, renewed, step
from tests.helpers.waiting import until


async def test_a_large_output_waits_for_postgres_and_keeps_its_lease(redis_server, client, monkeypatch):
    monkeypatch.setattr(pool_module, "_GRACE_S", 0.5)
    topic = judge(timeout_s=1, max_deliveries=2, heartbeat_s=0.2)
    stream = KEYS.stream(topic)
    await client.xadd(stream, fields(step()))
    away, runs = True, 0

    async def work(_one):
        nonlocal runs
        runs += 1
        return {"large": "x" * 100_000}

    async def keep(_tenant, _sha256, _raw):
        if away:
            raise StoreUnavailableError("Postgres: away")

    async def done():
        return await client.xlen(KEYS.done) == 1

    async with (
        consuming(redis_server.url, client, topic, work, name="a", keep=keep),
        consuming(redis_server.url, client, topic, work, name="b", keep=keep),
    ):
        # Longer than the handler may run, 1.5 s with its grace, after which the lease must be renewed all the same.
        async with asyncio.timeout(60):
            await renewed(client, stream, times=12)
        away = False
        await until(done)
    ((_, entry),) = await client.xrange(KEYS.done)
    body = orjson.loads(entry[b"body"])
    assert (body["outcome"], body["delivery"]) == ("succeeded", 1)
    assert runs == 1
