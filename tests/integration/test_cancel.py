"""Cancelling on the workers' side, on a real Redis: a marked task's steps end nowhere, nobody else's are touched."""

import asyncio
from typing import Any

import pytest

from octollm.contracts.ids import in_flight_field, message_id
from octollm.protocol.control import listen
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Completion, Handoff, LeaseStatus
from octollm.protocol.operations import Lease, Publish, Schedule
from octollm.protocol.outcomes import MESSAGES
from tests.helpers.consumers import KEYS, consuming, fields, judge, step, topology
from tests.helpers.waiting import until

STREAM = KEYS.stream(judge())
SEND = (Publish(KEYS.done, {"type": "step.done.v1"}),)


def in_flight_field_of(one):
    return in_flight_field(one.task, one.run, one.step, one.round)


async def cancel(client, one, tenant="default", ttl_s=60):
    message = {"type": "task.cancel.v1", "id": one.task, "tenant": tenant, "body": "{}"}
    return await Handoff(client, "l0", "judge", "ingress").cancel(one.task, tenant, ttl_s, message)


async def held(client, one, consumer="a"):
    """A step that `consumer` works on."""
    if not await client.exists(STREAM):
        await client.xgroup_create(STREAM, "judge", "0", mkstream=True)
    entry = (await client.xadd(STREAM, fields(one))).decode()
    await client.hset(KEYS.in_flight, in_flight_field_of(one), f"{STREAM} {entry}")
    await client.xreadgroup("judge", consumer, {STREAM: ">"}, count=1)
    return Lease(STREAM, entry, 1, in_flight_field_of(one), (KEYS.cancel(one.task), "default"))


async def test_steps_of_a_marked_task_are_removed_and_send_nothing(client):
    handoff = Handoff(client, "l0", "judge", "a")
    marked, other = await held(client, step(1)), await held(client, step(2))
    assert await cancel(client, step(1)) == ("accepted", "")
    assert await handoff.renew([marked, other]) == [LeaseStatus.CANCELLED, LeaseStatus.VALID]
    answers = await handoff.complete([Completion(marked, SEND), Completion(other, SEND)])
    assert answers == [LeaseStatus.CANCELLED, LeaseStatus.DONE]
    types = [entry[b"type"] for _, entry in await client.xrange(KEYS.done)]
    assert types == [b"task.cancel.v1", b"step.done.v1"]
    assert (await client.xlen(STREAM), await client.hlen(KEYS.in_flight)) == (0, 0)
    assert await handoff.complete([Completion(marked, SEND)]) == [LeaseStatus.GONE]


async def test_an_in_flight_field_that_names_a_newer_message_stays(client):
    marked = await held(client, step(1))
    await client.hset(KEYS.in_flight, in_flight_field_of(step(1)), f"{STREAM} 9-9")
    await cancel(client, step(1))
    assert await Handoff(client, "l0", "judge", "a").complete([Completion(marked, SEND)]) == [LeaseStatus.CANCELLED]
    assert await client.hlen(KEYS.in_flight) == 1


async def test_renew_does_not_keep_the_lease_of_a_cancelled_step(client):
    marked = await held(client, step(1))
    await cancel(client, step(1))
    await client.xclaim(STREAM, "judge", "a", 0, [marked.entry], idle=50_000, retrycount=1, justid=True)
    await Handoff(client, "l0", "judge", "a").renew([marked])
    (pending,) = await client.xpending_range(STREAM, "judge", "-", "+", 1)
    assert pending["time_since_delivered"] >= 50_000


async def test_a_foreign_marker_changes_nothing(client):
    handoff = Handoff(client, "l0", "judge", "a")
    ours = await held(client, step(1))
    # Redis has lost the status, so that nothing says whose the task is.
    assert await cancel(client, step(1), tenant="other") == ("accepted", "")
    assert await handoff.renew([ours]) == [LeaseStatus.VALID]
    assert await handoff.complete([Completion(ours, SEND, only_if_cancelled=True)]) == [LeaseStatus.VALID]
    assert await client.xlen(STREAM) == 1
    assert await handoff.complete([Completion(ours, SEND)]) == [LeaseStatus.DONE]
    # As soon as the status is back, its owner can cancel.
    await client.hset(KEYS.status(step(1).task), mapping={"tenant": "default", "state": "running"})
    assert await cancel(client, step(1), tenant="other") == ("other_tenant", "")
    assert await cancel(client, step(1)) == ("accepted", "running")
    assert await client.get(KEYS.cancel(step(1).task)) == b"default"


async def test_what_tells_the_orchestrator_ignores_the_marker(client):
    """An entry without a marker of its own: on `tasks` and `steps.done`."""
    await cancel(client, step(1))
    plain = (await held(client, step(1)))._replace(marker=None)
    assert await Handoff(client, "l0", "judge", "a").complete([Completion(plain, SEND)]) == [LeaseStatus.DONE]
    assert await client.xlen(KEYS.done) == 2


async def test_who_lost_the_lease_hears_that_first(client):
    marked = await held(client, step(1))
    await cancel(client, step(1))
    await client.xclaim(STREAM, "judge", "b", 0, [marked.entry])
    handoff = Handoff(client, "l0", "judge", "a")
    assert await handoff.renew([marked]) == [LeaseStatus.STALE]
    assert await handoff.complete([Completion(marked, SEND)]) == [LeaseStatus.STALE]
    assert await client.xlen(STREAM) == 1


@pytest.mark.parametrize("tenant", ["default", "other"])
async def test_due_steps_of_a_marked_task_are_dropped(client, tenant):
    handoff = Handoff(client, "l0", "judge", "a", Fairness(topology(), "l0"))
    for number in range(1, 4):
        one = step(number, attempt=2)
        ident = message_id(one.task, 1, "check", 0, 2)
        delay = Schedule(KEYS.schedule, KEYS.messages, STREAM, 0, ident, fields(one), in_flight_field_of(one))
        await handoff.publish([delay])
    await cancel(client, step(2), tenant=tenant)
    expected = 2 if tenant == "default" else 3
    assert await handoff.promote() == (3, 0)
    assert await client.xlen(STREAM) == expected
    assert await client.hlen(KEYS.in_flight) == expected
    assert (await client.zcard(KEYS.schedule), await client.hlen(KEYS.messages)) == (0, 0)


async def test_due_messages_are_moved_past_those_for_streams_nobody_here_knows(client):
    handoff = Handoff(client, "l0", "judge", "a", Fairness(topology(), "l0"))
    for number in range(30):
        one = step(number)
        stream = "{l0}:arm.newer:normal" if number < 20 else STREAM
        ident = message_id(one.task, 1, "check", 0, 1)
        await handoff.publish([Schedule(KEYS.schedule, KEYS.messages, stream, 0, ident, fields(one), "")])
    await client.zadd(KEYS.schedule, {"l0-task-of-its-own": 1})
    await client.hset(KEYS.messages, "l0-task-of-its-own", f'{{"stream":"{STREAM}","in_flight":"","fields":["a","b"]}}')
    moved = 0
    while (now := (await handoff.promote(most=5))[0]) > 0:
        moved += now
    assert (moved, await client.xlen(STREAM), await client.zcard(KEYS.schedule)) == (11, 11, 20)


class Waiting:
    """A handler that runs until it is stopped."""

    def __init__(self):
        self.started, self.stopped = asyncio.Event(), asyncio.Event()

    async def __call__(self, one):
        if one.input["number"] != 1:
            return {}
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


def ended(outcome):
    return MESSAGES.labels("arm.judge", outcome)._value.get()


@pytest.mark.parametrize("reported", [True, False], ids=["control", "heartbeat"])
async def test_a_running_handler_is_stopped_and_its_entry_ends(redis_server, client, reported):
    work, before = Waiting(), ended("cancelled")
    # Without the control channel the next heartbeat finds out; with it, nobody waits for one.
    topic = judge(heartbeat_s=600, lease_s=1800) if reported else judge()
    async with consuming(redis_server.url, client, topic, work) as member, asyncio.timeout(60):
        ear = asyncio.create_task(listen(redis_server.url, 2, ["l0"], lambda _, task: member.consumer.cancel(task)))
        await client.xadd(STREAM, fields(step(1)))
        await client.xadd(STREAM, fields(step(2)))
        await work.started.wait()
        await until(lambda: listening(client))
        await client.publish(KEYS.control, f"cancel {step(1).task}")  # not marked: it goes on
        await cancel(client, step(1))
        if reported:
            await client.publish(KEYS.control, "word-of-a-newer-version")
            await client.publish(KEYS.control, f"cancel {step(1).task}")
        await work.stopped.wait()
        await until(lambda: empty(client))
        ear.cancel()
    types = sorted(entry[b"type"] for _, entry in await client.xrange(KEYS.done))
    assert types == [b"step.done.v1", b"task.cancel.v1"]
    assert ended("cancelled") == before + 1


async def test_an_entry_whose_cancellation_is_withdrawn_while_it_stops_stays_for_others(redis_server, client):
    work, before = Waiting(), (ended("cancelled"), ended("abandoned"))

    async def regretted(one):
        try:
            return await work(one)
        finally:
            await client.delete(KEYS.cancel(one.task))

    topic = judge(heartbeat_s=600, lease_s=1800)
    async with consuming(redis_server.url, client, topic, regretted) as member, asyncio.timeout(60):
        await client.xadd(STREAM, fields(step(1)))
        await work.started.wait()
        await cancel(client, step(1))
        await member.consumer.cancel(step(1).task)
        await until(lambda: gone_from(member.consumer))
    assert (ended("cancelled"), ended("abandoned")) == (before[0], before[1] + 1)
    assert len(await client.xpending_range(STREAM, "judge", "-", "+", 9)) == 1


async def gone_from(consumer):
    return len(consumer._pool) == 0


async def test_who_cancels_another_tenants_task_stops_nothing(redis_server, client):
    work, before = Waiting(), ended("cancelled")
    # No lease ends here: a handler that was stopped by mistake must not be replaced by a reclaim.
    topic = judge(heartbeat_s=600, lease_s=1800)
    async with consuming(redis_server.url, client, topic, work) as member, asyncio.timeout(60):
        await client.xadd(STREAM, fields(step(1)))
        await work.started.wait()
        await cancel(client, step(1), tenant="other")
        await member.consumer.cancel(step(1).task)
        # A handler is stopped with the event loop's next turn: by the end of another step it would have been.
        await client.xadd(STREAM, fields(step(2)))
        await until(lambda: done_is(client, 2))
        assert not work.stopped.is_set()
        (pending,) = await client.xpending_range(STREAM, "judge", "-", "+", 9)
        assert (pending["consumer"], pending["times_delivered"]) == (b"a", 1)
        await cancel_for_real(client, step(1))
        await member.consumer.cancel(step(1).task)
        await work.stopped.wait()
        await until(lambda: empty(client))
    assert ended("cancelled") == before + 1


async def done_is(client, length):
    return await client.xlen(KEYS.done) == length


async def cancel_for_real(client, one):
    await client.hset(KEYS.status(one.task), "tenant", "default")
    assert await cancel(client, one) == ("accepted", "")


async def test_a_control_channel_that_broke_is_listened_to_again(redis_server, client):
    heard: asyncio.Queue[Any] = asyncio.Queue()

    async def obey(lane, task):
        await heard.put((lane, task))

    ear = asyncio.create_task(listen(redis_server.url, 2, ["l0", "l1"], obey))
    async with asyncio.timeout(60):
        await until(lambda: listening(client))
        await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        task = step(1).task
        while heard.empty():
            await client.publish("{l1}:control", f"cancel {task}")
            await asyncio.sleep(0.02)
        assert heard.get_nowait() == ("l1", task)
    ear.cancel()
    await asyncio.wait([ear])


async def listening(client):
    return (await client.pubsub_numsub(KEYS.control))[0][1] > 0


async def empty(client):
    return await client.xlen(STREAM) == 0
