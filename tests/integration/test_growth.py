"""What would grow with every crash and every task, although nobody looks at it again."""

from octollm.consumer import dead_consumers
from octollm.consumer.worker import Worker
from octollm.contracts.ids import new_task_id
from octollm.orchestrator.maintenance import Maintenance
from octollm.orchestrator.messages import MessageBuilder
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Handoff
from octollm.protocol.operations import Publish, Schedule
from octollm.supervision import Supervisor
from tests.helpers.consumers import KEYS, consuming, dead_workers, fields, judge, step, topology
from tests.helpers.orchestrators import message_builder, rows, submitted
from tests.helpers.waiting import until

STREAM = KEYS.stream(judge())


async def test_a_dead_workers_name_does_not_stay_in_the_group(redis_server, client, monkeypatch):
    monkeypatch.setattr(dead_consumers, "DEAD_AFTER_S", 0.01)
    monkeypatch.setattr(dead_consumers, "INTERVAL_S", 0.01)
    topic = judge()
    stream = KEYS.stream(topic)
    await dead_workers(client, stream, 1, [1])

    async def work(_one):
        return {}

    async def deleted():
        return b"killed" not in [one["name"] for one in await client.xinfo_consumers(stream, "judge")]

    async with consuming(redis_server.url, client, topic, work):
        await until(deleted)
    assert await client.xlen(KEYS.done) == 1


async def test_a_worker_that_owns_something_is_never_deleted(redis_server, client, monkeypatch):
    monkeypatch.setattr(dead_consumers, "DEAD_AFTER_S", 0.0)
    monkeypatch.setattr(dead_consumers, "INTERVAL_S", 0.0)
    topic = judge()
    stream = KEYS.stream(topic)
    await dead_workers(client, stream, 1, [1], idle=0)

    async def work(_one):
        return {}

    async def finished():
        return await client.xlen(KEYS.done) == 1

    async with consuming(redis_server.url, client, topic, work):
        await until(finished)


async def test_expired_idempotency_rows_are_removed(orchestrator, pool):
    await orchestrator.handle([submitted(new_task_id("l0")), submitted(new_task_id("l0"))])
    first = "SELECT min(id) FROM tasks"
    await rows(pool, f"UPDATE idempotency SET expires_at = now() - interval '1 s' WHERE task = ({first}) RETURNING 1")
    await orchestrator.delete_expired_keys(10)
    (left,) = await rows(pool, "SELECT task, (SELECT max(id) FROM tasks) AS newest FROM idempotency")
    assert left["task"] == left["newest"]


def message(number, stream=STREAM):
    one = step(number)
    return Publish(stream, fields(one), MessageBuilder.in_flight(one))


async def walk(handoff, most=10):
    """A whole round over the in-flight index: how many looks it took, and how many were deleted."""
    cursor, looks, all_pruned = 0, 0, 0
    while True:
        cursor, deleted = await handoff.prune(cursor, most)
        looks, all_pruned = looks + 1, all_pruned + deleted
        if cursor == 0:
            return looks, all_pruned


async def test_names_whose_messages_went_with_their_stream_do_not_stay(client):
    """Also where their tasks have ended, so that no reconciler asks for them."""
    handoff = Handoff(client, "l0", "judge", "a", Fairness(topology(), "l0"))
    unlimited = Handoff(client, "l0", "judge", "a")
    await unlimited.publish([message(number) for number in range(600)])
    assert await walk(handoff) == (await looks_at(client), 0)
    await client.delete(STREAM)
    looks, deleted = await walk(handoff)
    assert deleted == 600
    assert looks > 10  # a slice at a time
    assert await client.exists(KEYS.in_flight) == 0


async def looks_at(client):
    """How many slices of ten a walk over the hash takes."""
    cursor, looks = 0, 0
    while True:
        cursor, _ = await client.hscan(KEYS.in_flight, cursor, count=10)
        looks += 1
        if cursor == 0:
            return looks


async def test_a_name_is_kept_wherever_its_message_is(client):
    waits, fair = KEYS.stream(judge(), "low"), Fairness(topology(), "l0")
    handoff = Handoff(client, "l0", "judge", "a", fair)
    window = topology().topics["arm.judge"].window
    assert window
    ready = [message(number, waits) for number in range(window + 3)]
    await handoff.publish(ready)
    assert await client.hlen(KEYS.waiting(waits)) > 0
    later = message(1001)
    await handoff.publish([Schedule(KEYS.schedule, KEYS.messages, STREAM, 60_000, "m", later.fields, later.in_flight)])
    ended = message(1002, KEYS.done)
    await handoff.publish([ended])
    unknown = message(1003, "{l0}:arm.another-versions:normal")
    await handoff.publish([unknown])
    await client.hset(KEYS.in_flight, "odd", "of a version to come")
    assert (await walk(handoff))[1] == 0
    assert await client.hlen(KEYS.in_flight) == len(ready) + 4
    await client.delete(KEYS.waiting(waits), KEYS.schedule, KEYS.done)
    assert (await walk(handoff))[1] == 3 + 2
    assert await client.hexists(KEYS.in_flight, unknown.in_flight)
    assert await client.hexists(KEYS.in_flight, ready[0].in_flight)


async def test_each_run_continues_where_the_last_one_ended(orchestrator, pool, redis_server, client):
    worker = Worker(redis_server.url, 30.0, topology(), "w", Supervisor())
    await Handoff(client, "l0", "judge", "a").publish([message(number) for number in range(2000)])
    await client.delete(STREAM)
    maintenance = Maintenance(orchestrator, pool, topology(), message_builder(), worker)
    await maintenance.prune_in_flight_index()
    left = await client.hlen(KEYS.in_flight)
    assert 0 < left < 2000

    async def pruned() -> bool:
        await maintenance.prune_in_flight_index()
        return bool(await client.hlen(KEYS.in_flight) == 0)

    await until(pruned)
    await worker.stop(0)
