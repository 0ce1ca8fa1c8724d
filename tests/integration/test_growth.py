"""What would grow with every crash and every task, although nobody looks at it again."""

from making import rows, submitted
from stepping import KEYS, consuming, dead_workers, judge, until

from octollm.bus import takeover
from octollm.contracts.ids import new_task_id


async def test_a_dead_workers_name_does_not_stay_in_the_group(redis_server, client, monkeypatch):
    monkeypatch.setattr(takeover, "FORGET_AFTER_S", 0.01)
    topic = judge()
    stream = KEYS.stream(topic)
    await dead_workers(client, stream, 1, [1])

    async def work(_one):
        return {}

    async def forgotten():
        return b"killed" not in [one["name"] for one in await client.xinfo_consumers(stream, "judge")]

    async with consuming(redis_server.url, client, topic, work):
        await until(forgotten, 20)
    assert await client.xlen(KEYS.done) == 1


async def test_a_worker_that_owns_something_is_never_forgotten(redis_server, client, monkeypatch):
    monkeypatch.setattr(takeover, "FORGET_AFTER_S", 0.0)
    topic = judge()
    stream = KEYS.stream(topic)
    await dead_workers(client, stream, 1, [1], idle=0)

    async def work(_one):
        return {}

    async def finished():
        return await client.xlen(KEYS.done) == 1

    async with consuming(redis_server.url, client, topic, work):
        await until(finished, 20)


async def test_expired_idempotency_rows_are_removed(orchestrator, pool):
    await orchestrator.handle([submitted(new_task_id("l0")), submitted(new_task_id("l0"))])
    first = "SELECT min(id) FROM tasks"
    await rows(pool, f"UPDATE idempotency SET expires_at = now() - interval '1 s' WHERE task = ({first}) RETURNING 1")
    await orchestrator.forget_keys(10)
    (left,) = await rows(pool, "SELECT task, (SELECT max(id) FROM tasks) AS newest FROM idempotency")
    assert left["task"] == left["newest"]
