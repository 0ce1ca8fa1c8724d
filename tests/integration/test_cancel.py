"""Ended runs on the workers' side, on a real Redis: their steps lead to nothing, nobody else's are touched."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from octollm.consumer.circuit_breaker import NEVER_OPENS
from octollm.consumer.worker import Worker
from octollm.contracts.ids import in_flight_field, message_id
from octollm.protocol.control import listen
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Completion, Handoff, LeaseStatus
from octollm.protocol.operations import EndRun, Lease, Publish, Schedule, StepRun
from octollm.protocol.outcomes import MESSAGES
from octollm.protocol.run_watch import RedisClock, RunWatch
from octollm.protocol.scripts import Scripts
from octollm.steps.runner import StepRunner
from octollm.supervision import Supervisor
from tests.helpers.consumers import CLAIM_ALL, KEYS, consuming, fields, judge, keep_nothing, step, topology
from tests.helpers.waiting import until

STREAM = KEYS.stream(judge())
_BEFORE_ITS_LIMIT_S = 20
"""The time limit of a step of the judge is 30 s, and stops its handler as well."""
SEND = (Publish(KEYS.done, {"type": "step.done.v1"}),)


def in_flight_field_of(one):
    return in_flight_field(one.task, one.run, one.step, one.round)


async def cancel(client, one, tenant="default", ttl_s=60):
    message = {"type": "task.cancel.v1", "id": one.task, "tenant": tenant, "body": "{}"}
    return await Handoff(client, "l0", "judge", "ingress").cancel(one.task, tenant, 1, ttl_s, message)


async def held(client, one, consumer="a"):
    """A step that `consumer` works on."""
    if not await client.exists(STREAM):
        await client.xgroup_create(STREAM, "judge", "0", mkstream=True)
    entry = (await client.xadd(STREAM, fields(one))).decode()
    await client.hset(KEYS.in_flight, in_flight_field_of(one), f"{STREAM} {entry}")
    await client.xreadgroup("judge", consumer, {STREAM: ">"}, count=1)
    return Lease(STREAM, entry, 1, in_flight_field_of(one), StepRun(KEYS.ended_runs, f"{one.task}.1", "default"))


async def test_steps_of_an_ended_run_are_removed_and_send_nothing(client):
    handoff = Handoff(client, "l0", "judge", "a")
    marked, other = await held(client, step(1)), await held(client, step(2))
    assert await cancel(client, step(1)) == ("accepted", "")
    assert await handoff.renew([marked, other]) == [LeaseStatus.RUN_ENDED, LeaseStatus.VALID]
    answers = await handoff.complete([Completion(marked, SEND), Completion(other, SEND)])
    assert answers == [LeaseStatus.RUN_ENDED, LeaseStatus.DONE]
    types = [entry[b"type"] for _, entry in await client.xrange(KEYS.done)]
    assert types == [b"task.cancel.v1", b"step.done.v1"]
    assert (await client.xlen(STREAM), await client.hlen(KEYS.in_flight)) == (0, 0)
    assert await handoff.complete([Completion(marked, SEND)]) == [LeaseStatus.GONE]


async def test_an_in_flight_field_that_names_a_newer_message_stays(client):
    marked = await held(client, step(1))
    await client.hset(KEYS.in_flight, in_flight_field_of(step(1)), f"{STREAM} 9-9")
    await cancel(client, step(1))
    assert await Handoff(client, "l0", "judge", "a").complete([Completion(marked, SEND)]) == [LeaseStatus.RUN_ENDED]
    assert await client.hlen(KEYS.in_flight) == 1


async def test_renew_does_not_keep_the_lease_of_an_ended_run(client):
    marked = await held(client, step(1))
    await cancel(client, step(1))
    await client.xclaim(STREAM, "judge", "a", 0, [marked.entry], idle=50_000, retrycount=1, justid=True)
    await Handoff(client, "l0", "judge", "a").renew([marked])
    (pending,) = await client.xpending_range(STREAM, "judge", "-", "+", 1)
    assert pending["time_since_delivered"] >= 50_000


async def test_another_tenant_ends_no_run(client):
    handoff = Handoff(client, "l0", "judge", "a")
    ours = await held(client, step(1))
    # Redis has lost the status, so that nothing says whose the task is.
    assert await cancel(client, step(1), tenant="other") == ("accepted", "")
    assert await handoff.renew([ours]) == [LeaseStatus.VALID]
    assert await handoff.complete([Completion(ours, SEND, only_if_ended=True)]) == [LeaseStatus.VALID]
    assert await client.xlen(STREAM) == 1
    assert await handoff.complete([Completion(ours, SEND)]) == [LeaseStatus.DONE]
    await client.hset(KEYS.status(step(1).task), mapping={"tenant": "default", "state": "running"})
    assert await cancel(client, step(1), tenant="other") == ("other_tenant", "")
    assert await cancel(client, step(1)) == ("accepted", "running")
    assert await client.zscore(KEYS.ended_runs, f"{step(1).task}.1 default") is not None


async def test_what_tells_the_orchestrator_does_not_end_with_a_run(client):
    """An entry that is no step: on `tasks` and `steps.done`."""
    await cancel(client, step(1))
    plain = (await held(client, step(1)))._replace(run=None)
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
async def test_due_steps_of_an_ended_run_are_dropped(client, tenant):
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


@pytest.mark.parametrize("deliveries", [1, 5], ids=["reclaimed", "at its last delivery"])
async def test_a_reclaimed_step_of_an_ended_run_is_removed_and_becomes_no_dead_letter(client, deliveries):
    theirs, others = await held(client, step(1)), await held(client, step(2))
    await cancel(client, step(1))
    for lease in (theirs, others):
        await client.xclaim(STREAM, "judge", "a", 0, [lease.entry], idle=10**6, retrycount=deliveries, justid=True)
    handoff = Handoff(client, "l0", "judge", "b", Fairness(topology(), "l0"))
    found = await handoff.claim(STREAM, judge(), CLAIM_ALL)
    assert found.ended == [theirs.entry]
    assert [one.id for one in found.entries] + found.dead == [others.entry]
    dead_letters = await client.xrange(KEYS.dead)
    tasks = [fields[b"id"].decode().partition(".")[0] for _, fields in dead_letters]
    assert tasks == [step(2).task] * len(found.dead)
    assert not await client.hexists(KEYS.in_flight, in_flight_field_of(step(1)))


async def test_a_run_that_is_ended_without_an_entry_stops_its_steps_and_no_other_run(client):
    handoff = Handoff(client, "l0", "judge", "a")
    ours, other = await held(client, step(1)), await held(client, step(2))
    later = other._replace(run=StepRun(KEYS.ended_runs, f"{step(1).task}.2", "default"))
    async with client.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(KEYS.control)
        await handoff.publish([EndRun(KEYS.ended_runs, KEYS.control, f"{step(1).task}.1", "default", 60)])
        async with asyncio.timeout(10):
            while (word := await channel.get_message(timeout=1)) is None:
                pass
    assert word["data"] == f"ended {step(1).task}.1".encode()
    assert await handoff.renew([ours, later]) == [LeaseStatus.RUN_ENDED, LeaseStatus.VALID]
    assert await handoff.complete([Completion(ours, SEND)]) == [LeaseStatus.RUN_ENDED]
    assert await client.xlen(KEYS.done) == 0


async def test_what_runs_of_a_task_that_has_ended_or_is_not_known_is_stopped_all_the_same(client):
    for number, state in ((1, "expired"), (2, None)):
        lease = await held(client, step(number))
        if state:
            status = {"tenant": "default", "state": state, "run": "1"}
            await client.hset(KEYS.status(step(number).task), mapping=status)
        answer = await cancel(client, step(number))
        assert answer == (("ended", "expired") if state else ("accepted", ""))
        assert await Handoff(client, "l0", "judge", "a").renew([lease]) == [LeaseStatus.RUN_ENDED]


async def test_only_a_step_that_a_worker_holds_is_executed(client):
    handoff = Handoff(client, "l0", "judge", "a", Fairness(topology(), "l0"))
    leases = [await held(client, step(number)) for number in (1, 2)]
    waiting, later = step(3), step(4)
    await handoff.publish([Publish(STREAM, fields(waiting), in_flight_field_of(waiting))])
    ident = message_id(later.task, 1, "check", 0, 1)
    delay = Schedule(KEYS.schedule, KEYS.messages, STREAM, 60_000, ident, fields(later), in_flight_field_of(later))
    await handoff.publish([delay])
    every = [in_flight_field_of(step(number)) for number in range(1, 6)]
    assert await handoff.executing(every) == 2
    await handoff.release(leases[:1])
    assert await handoff.executing(every) == 1
    await handoff.complete([Completion(leases[1], ())])
    assert (await handoff.executing(every), await handoff.executing([])) == (0, 0)


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
    work, before = Waiting(), ended("run_ended")
    # Without the control channel the next heartbeat finds out; with it, nobody waits for one.
    topic = judge(heartbeat_s=600, lease_s=1800) if reported else judge()
    async with consuming(redis_server.url, client, topic, work) as member, asyncio.timeout(_BEFORE_ITS_LIMIT_S):
        watches = [RunWatch(client, "l0", RedisClock())]
        ear = asyncio.create_task(listen(redis_server.url, 2, watches, lambda _, run: member.consumer.stop_run(run)))
        await client.xadd(STREAM, fields(step(1)))
        await client.xadd(STREAM, fields(step(2)))
        await work.started.wait()
        await until(lambda: listening(client))
        await client.publish(KEYS.control, f"ended {step(1).task}.1")  # Redis does not confirm it: it goes on
        await client.publish(KEYS.control, "word-of-a-newer-version")
        if reported:
            await cancel(client, step(1))
        else:
            await client.zadd(KEYS.ended_runs, {f"{step(1).task}.1 default": 2**40})
        await work.stopped.wait()
        await until(lambda: empty(client))
        ear.cancel()
    types = sorted(entry[b"type"] for _, entry in await client.xrange(KEYS.done))
    assert types == [b"step.done.v1", b"task.cancel.v1"][: 1 + reported]
    assert ended("run_ended") == before + 1


async def test_a_worker_listens_for_ended_runs_and_stops_their_handlers(redis_server, client):
    work, supervisor = Waiting(), Supervisor()
    topic = judge(heartbeat_s=600, lease_s=1800)
    known = topology()
    rarely_renewed = replace(known, topics={**known.topics, topic.name: topic})
    worker = Worker(redis_server.url, 30.0, rarely_renewed, "w", supervisor, NEVER_OPENS)
    worker.add(topic, "l0", StepRunner(topic, KEYS, "w", work, keep_nothing))
    await worker.start()
    try:
        async with asyncio.timeout(_BEFORE_ITS_LIMIT_S):
            await client.xadd(STREAM, fields(step(1)))
            await work.started.wait()
            await until(lambda: listening(client))
            await cancel(client, step(1))
            await work.stopped.wait()
    finally:
        await worker.stop(0)
        await supervisor.stop()


async def test_a_stopped_step_whose_run_is_deleted_meanwhile_stays_pending(redis_server, client):
    work, before = Waiting(), (ended("run_ended"), ended("abandoned"))

    async def deleted(one):
        try:
            return await work(one)
        finally:
            await client.delete(KEYS.ended_runs)

    topic = judge(heartbeat_s=600, lease_s=1800)
    async with consuming(redis_server.url, client, topic, deleted) as member, asyncio.timeout(_BEFORE_ITS_LIMIT_S):
        await client.xadd(STREAM, fields(step(1)))
        await work.started.wait()
        await cancel(client, step(1))
        await member.consumer.stop_run(f"{step(1).task}.1")
        await until(lambda: gone_from(member.consumer))
    assert (ended("run_ended"), ended("abandoned")) == (before[0], before[1] + 1)
    assert len(await client.xpending_range(STREAM, "judge", "-", "+", 9)) == 1


async def gone_from(consumer):
    return len(consumer._pool) == 0


async def test_who_cancels_another_tenants_task_stops_nothing(redis_server, client):
    work, before = Waiting(), ended("run_ended")
    # No lease ends here: a handler that was stopped by mistake must not be replaced by a reclaim.
    topic = judge(heartbeat_s=600, lease_s=1800)
    async with consuming(redis_server.url, client, topic, work) as member, asyncio.timeout(60):
        await client.xadd(STREAM, fields(step(1)))
        await work.started.wait()
        await cancel(client, step(1), tenant="other")
        await member.consumer.stop_run(f"{step(1).task}.1")
        # A handler is stopped with the event loop's next turn: by the end of another step it would have been.
        await client.xadd(STREAM, fields(step(2)))
        await until(lambda: done_is(client, 2))
        assert not work.stopped.is_set()
        (pending,) = await client.xpending_range(STREAM, "judge", "-", "+", 9)
        assert (pending["consumer"], pending["times_delivered"]) == (b"a", 1)
        await cancel_for_real(client, step(1))
        await member.consumer.stop_run(f"{step(1).task}.1")
        await work.stopped.wait()
        await until(lambda: empty(client))
    assert ended("run_ended") == before + 1


async def done_is(client, length):
    return await client.xlen(KEYS.done) == length


async def cancel_for_real(client, one):
    await client.hset(KEYS.status(one.task), "tenant", "default")
    assert await cancel(client, one) == ("accepted", "")


async def test_a_control_channel_that_broke_is_listened_to_again(redis_server, client):
    heard: asyncio.Queue[Any] = asyncio.Queue()

    async def obey(lane, run):
        await heard.put((lane, run))

    watches = [RunWatch(client, lane, RedisClock()) for lane in ("l0", "l1")]
    ear = asyncio.create_task(listen(redis_server.url, 2, watches, obey))
    async with asyncio.timeout(60):
        await until(lambda: listening(client))
        await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        run = f"{step(1).task}.1"
        while heard.empty():
            await client.publish("{l1}:control", f"ended {run}")
            await asyncio.sleep(0.02)
        assert heard.get_nowait() == ("l1", run)
    ear.cancel()
    await asyncio.wait([ear])


async def listening(client):
    return (await client.pubsub_numsub(KEYS.control))[0][1] > 0


async def empty(client):
    return await client.xlen(STREAM) == 0


OUT_OF_BOUNDS = ["0", "-1", "1.5", "2147483648", "9300000000000000", "1e300", "inf", "nan", "x", ""]


@pytest.mark.parametrize("script", ["cancel", "redrive"])
@pytest.mark.parametrize("argument", ["run", "ttl", "fields"])
@pytest.mark.parametrize("value", OUT_OF_BOUNDS)
async def test_a_number_out_of_bounds_is_refused_before_the_first_write(client, script, argument, value):
    task = step(1).task
    numbers = {"run": "1", "ttl": "60", "fields": "1", argument: value}
    keys = (KEYS.ended_runs, KEYS.done, KEYS.status(task), KEYS.control)
    call = getattr(Scripts.of(client), script)
    with pytest.raises(ResponseError, match=r"not a number in range|missing or wrong arguments"):
        await call(keys=keys, args=(task, "default", *numbers.values(), "type", "x"))
    assert await client.dbsize() == 0


@pytest.mark.parametrize("script", ["cancel", "redrive"])
@pytest.mark.parametrize("ttl_s", [1, 604_800, 2**31 - 1])
async def test_a_run_counts_as_ended_for_as_long_as_the_caller_says(client, script, ttl_s):
    task = step(1).task
    await getattr(Handoff(client, "l0", "judge", "ingress"), script)(task, "default", 2**31 - 1, ttl_s, {"type": "x"})
    (now, _), (kept,) = await client.time(), await client.zrange(KEYS.ended_runs, 0, -1, withscores=True)
    assert kept[0] == f"{task}.{2**31 - 1} default".encode()
    assert now - 5 + ttl_s <= kept[1] <= now + ttl_s
