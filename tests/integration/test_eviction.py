"""Finished work does not fill Redis: statuses of finished tasks leave early when memory runs short."""

import pytest
from redis.exceptions import ResponseError

from octollm.consumer.worker import Worker
from octollm.contracts.ids import new_task_id
from octollm.orchestrator.eviction import Eviction
from octollm.protocol.handoff import Handoff
from octollm.protocol.operations import SetStatus
from octollm.supervision import Supervisor
from tests.helpers.consumers import KEYS, topology
from tests.helpers.orchestrators import rows, submitted


@pytest.fixture
async def worker(redis_server):
    made = Worker(redis_server.url, 30.0, topology(), "w", Supervisor())
    yield made
    await made.stop(0)


async def status(worker, task, state, filler=""):
    fields = {"task": task, "tenant": "default", "state": state, "detail": filler}
    await worker.publish("l0", [SetStatus(KEYS.status(task), 1, 3600, fields)])


async def ended(orchestrator, pool, worker, count):
    """Store tasks, of which the last two still run, with statuses of 10 kB each; return their ids, oldest end first."""
    tasks = [new_task_id("l0") for _ in range(count)]
    await orchestrator.handle([submitted(task) for task in tasks])
    for age, task in enumerate(reversed(tasks)):
        state = "running" if age < 2 else "succeeded"
        if age >= 2:
            seconds = 20 + age
            await rows(
                pool,
                f"UPDATE tasks SET state = 'succeeded', finished_at = now() - interval '{seconds} s' "
                f"WHERE id = '{task}' RETURNING 1",
            )
        await status(worker, task, state, "x" * 10_000)
    return tasks


async def limit(client, share):
    """Set the memory limit so that `share` of it is used now."""
    used = int((await client.info("memory"))["used_memory"])
    await client.config_set("maxmemory", int(used / share))


async def test_statuses_of_finished_tasks_leave_oldest_first_and_running_ones_stay(orchestrator, pool, client, worker):
    tasks = await ended(orchestrator, pool, worker, 600)
    await limit(client, 0.65)
    try:
        assert 0 < await Eviction(pool, worker, 3600).run() < 600
    finally:
        await client.config_set("maxmemory", 0)
    left = [task for task in tasks if await client.exists(KEYS.status(task))]
    assert left == tasks[-len(left) :]
    assert {tasks[-1], tasks[-2]} <= set(left)
    assert len(left) < 600


async def test_when_only_live_statuses_are_left_nothing_is_evicted(orchestrator, pool, client, worker):
    tasks = await ended(orchestrator, pool, worker, 2)
    await limit(client, 0.95)
    try:
        assert await Eviction(pool, worker, 3600).run() == 0
    finally:
        await client.config_set("maxmemory", 0)
    assert await client.exists(*map(KEYS.status, tasks)) == 2


async def test_without_pressure_or_a_limit_every_status_stays(orchestrator, pool, client, worker):
    tasks = await ended(orchestrator, pool, worker, 20)
    assert await worker.memory_share() == 0.0
    assert await Eviction(pool, worker, 3600).run() == 0
    await limit(client, 0.4)
    try:
        assert await Eviction(pool, worker, 3600).run() == 0
    finally:
        await client.config_set("maxmemory", 0)
    assert await client.exists(*map(KEYS.status, tasks)) == 20


async def test_a_task_that_runs_again_meanwhile_keeps_its_status(client):
    handoff = Handoff(client, "l0", "", "w")
    ended_task, again, foreign = (new_task_id("l0") for _ in range(3))
    await client.hset(KEYS.status(ended_task), mapping={"state": "failed"})
    await client.hset(KEYS.status(again), mapping={"state": "running"})
    await client.set(KEYS.status(foreign), "no hash")
    assert await handoff.evict([ended_task, again, foreign, new_task_id("l0")]) == 1
    assert await client.exists(KEYS.status(again), KEYS.status(foreign)) == 2


async def test_events_are_shortened_but_not_below_what_a_reconnecting_client_needs(client, worker):
    for number in range(1500):
        await client.xadd(KEYS.events, {"n": number})
    await worker.trim_events()
    assert 1000 <= await client.xlen(KEYS.events) <= 1100


async def test_every_status_gets_a_time_to_live(orchestrator, pool, client, worker):
    task = new_task_id("l0")
    (answer,) = await orchestrator.handle([submitted(task)])
    await worker.publish("l0", answer)
    assert await client.hget(KEYS.status(task), "state") == b"running"
    assert await client.ttl(KEYS.status(task)) > 37 * 24 * 3600


@pytest.mark.parametrize("ttl", [2**31, 1e300, float("nan"), float("inf"), -(2**31), -1, 1.5, "x"])
async def test_a_time_to_live_out_of_range_is_refused_before_the_first_write(client, ttl):
    task = new_task_id("l0")
    good = SetStatus(KEYS.status(new_task_id("l0")), 1, 60, {"state": "running"})
    bad = SetStatus(KEYS.status(task), 1, ttl, {"state": "running"})
    with pytest.raises(ResponseError, match="not a number in range"):
        await Handoff(client, "l0", "", "w").publish([good, bad])
    assert await client.exists(good.key, bad.key) == 0
