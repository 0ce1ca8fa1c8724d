"""Stopping, as at every deploy: what has no result is given back uncharged, and goes on elsewhere at once."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from prometheus_client import REGISTRY
from redis.exceptions import ConnectionError as RedisConnectionError

from octollm.consumer import consumer as consumer_module
from octollm.errors import PermanentError, StoreUnavailableError
from octollm.protocol.handoff import Entry, Handoff
from octollm.protocol.outcomes import Outcome
from tests.helpers.consumers import KEYS, Member, consuming, fields, judge, step
from tests.helpers.waiting import until

STREAM = KEYS.stream(judge())


def counted(outcome):
    return REGISTRY.get_sample_value("octollm_messages_total", {"topic": "arm.judge", "outcome": outcome}) or 0


async def pending(client, count=9, consumer=None):
    found = await client.xpending_range(STREAM, "judge", "-", "+", count, consumer)
    return [(one["consumer"].decode(), one["times_delivered"]) for one in found]


async def put(client, *numbers):
    for number in numbers:
        await client.xadd(STREAM, fields(step(number)))


async def has_length(client, stream, length):
    return await client.xlen(stream) >= length


class Endless:
    """A handler that never ends, and what became of it."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.running = 0

    async def __call__(self, _step):
        self.running += 1
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        return {}


async def until_begun(handler):
    async with asyncio.timeout(60):
        await handler.begun.wait()


async def test_a_suspect_that_waits_is_given_back_uncharged(redis_server, client):
    work = Endless()
    member = Member(redis_server.url, client, judge(timeout_s=60), work)
    await member.start()
    await put(client, 1)
    await until_begun(work)
    await client.xgroup_createconsumer(STREAM, "judge", "killed")
    entry = await client.xadd(STREAM, fields(step(7)))
    await until(lambda: has_pending(client, 2))
    await client.xclaim(STREAM, "judge", "killed", 0, [entry], idle=60000, retrycount=4, justid=True)

    async def waits():
        return ("a", 5) in await pending(client)

    await until(waits)
    released = counted("released")
    await member.stop(drain_s=0)
    assert sorted(await pending(client)) == [("released", 0), ("released", 4)]
    assert work.running == 0
    assert counted("released") == released + 2


async def has_pending(client, count):
    return len(await pending(client)) >= count


async def test_a_step_that_outlasts_the_drain_goes_on_elsewhere_at_once(redis_server, client):
    """Not only after its lease, which is ten minutes here; and its handler has ended before."""
    first, second = Endless(), Endless()
    topic = judge(lease_s=600)
    await put(client, 1)
    member = Member(redis_server.url, client, topic, first, name="old")
    await member.start()
    await until_begun(first)
    async with AsyncExitStack() as exits:
        standby = Member(redis_server.url, client, topic, second, name="new")
        await standby.start()
        exits.push_async_callback(standby.stop, 0)
        await member.stop(drain_s=0.1)
        assert first.running == 0
        await until_begun(second)
        assert await pending(client) == [("new", 1)]


async def test_ten_deploys_in_a_row_cost_a_long_step_nothing(redis_server, client):
    topic = judge(max_deliveries=2, lease_s=600)
    await put(client, 1)
    for number in range(10):
        work = Endless()
        member = Member(redis_server.url, client, topic, work, name=f"deploy{number}")
        await member.start()
        await until_begun(work)
        await member.stop(drain_s=0)
        assert await pending(client) == [("released", 0)]

    async def ends(_step):
        return {}

    async with consuming(redis_server.url, client, topic, ends, name="last"):
        await until(partial(has_length, client, KEYS.done, 1))
    assert await client.xlen(KEYS.dead) == 0
    assert {one["name"] for one in await client.xinfo_consumers(STREAM, "judge")} <= {b"released"}


async def test_a_deploy_fails_no_step_whatever_its_handler_makes_of_the_cancellation(redis_server, client):
    begun = []

    async def work(one):
        begun.append(one.input["number"])
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if one.input["number"] == 0:
                raise PermanentError("aborted", "the connection was closed") from None
            if one.input["number"] == 1:
                raise OSError("closed") from None
            if one.input["number"] == 2:
                raise StoreUnavailableError("Postgres: closed") from None
            return {"ended": "all the same"}

    await put(client, 0, 1, 2, 3)
    member = Member(redis_server.url, client, judge(), work)
    await member.start()

    async def all_run():
        return len(begun) == 4

    await until(all_run)
    await member.stop(drain_s=0)
    assert await pending(client) == [("released", 0)] * 3
    assert await client.xlen(KEYS.done) == 1


async def test_a_handler_without_a_time_limit_is_stopped_at_the_end_of_the_drain_too(redis_server, client):
    """As the orchestrator's, the archive's and memory's are, which wait for a batch."""
    stopped = []

    async def batched(_entry):
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(1)

    await put(client, *range(5))
    member = Member(redis_server.url, client, judge(timeout_s=None), None, handler=batched)
    await member.start()

    async def all_run():
        return len(member.consumer._pool) == 5

    await until(all_run)
    await member.stop(drain_s=0)
    assert await pending(client) == [("released", 0)] * 5
    assert len(stopped) == 5


async def test_a_step_that_waits_for_a_store_is_given_back(redis_server, client):
    begun = asyncio.Event()

    async def work(_one):
        begun.set()
        raise StoreUnavailableError("Postgres: away")

    await put(client, 1)
    member = Member(redis_server.url, client, judge(), work)
    await member.start()
    async with asyncio.timeout(60):
        await begun.wait()
    await member.stop(drain_s=0)
    assert await pending(client) == [("released", 0)]


async def test_a_handler_that_ignores_its_cancellation_keeps_its_lease(redis_server, client, monkeypatch):
    """Given back, the step would run twice at the same time."""
    monkeypatch.setattr(consumer_module, "_CANCEL_S", 0.3)
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def work(_one):
        begun.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return {}

    await put(client, 1)
    member = Member(redis_server.url, client, judge(), work)
    await member.start()
    async with asyncio.timeout(60):
        await begun.wait()
    await member.stop(drain_s=0)
    assert await pending(client) == [("a", 1)]
    assert not member.leases._renewals
    let_go.set()


async def test_what_runs_in_a_process_that_broke_is_charged(redis_server, client):
    """It may be the cause: given back uncharged, it could end one process after the other for ever."""
    work = Endless()
    await put(client, 1)
    member = Member(redis_server.url, client, judge(), work)
    await member.start()
    await until_begun(work)
    await member.broker.stop()
    await member.consumer.stop(0, failed=True)
    await asyncio.to_thread(member.leases.stop)
    assert await pending(client) == [("a", 1)]


async def test_any_number_of_entries_is_given_back(redis_server, client):
    work = Endless()
    member = Member(redis_server.url, client, judge(), work, concurrency=1)
    await member.start()
    await put(client, 1)
    await until_begun(work)
    adding = client.pipeline(transaction=False)
    for number in range(2500):
        adding.xadd(STREAM, fields(step(number)))
    await adding.execute()
    # As a read that was cut off leaves them: delivered to this consumer, and it does not know.
    await client.xreadgroup("judge", "a", {STREAM: ">"}, count=2500)
    await member.stop(drain_s=0)
    assert await pending(client, 3000) == [("released", 0)] * 2501


async def test_surplus_entries_are_given_back_again_until_redis_takes_them(redis_server, client, monkeypatch):
    release, failures = Handoff.release, iter(range(3))

    async def away(self, leases):
        if next(failures, None) is not None:
            raise RedisConnectionError("away")
        return await release(self, leases)

    monkeypatch.setattr(Handoff, "release", away)
    work = Endless()
    member = Member(redis_server.url, client, judge(), work, concurrency=1)
    await member.start()
    await put(client, 1)
    await until_begun(work)
    await put(client, 2)
    ((_, [(entry, raw)]),) = await client.xreadgroup("judge", "a", {STREAM: ">"}, count=1)
    member.consumer._intake.admit([Entry(STREAM, entry.decode(), 1, raw)])

    async def given_back():
        return ("released", 0) in await pending(client)

    await until(given_back)
    assert next(failures, None) is None
    await member.stop(drain_s=0)


async def test_what_cannot_be_given_back_at_the_end_has_its_outcome(redis_server, client, monkeypatch):
    async def away(_self, _leases):
        raise RedisConnectionError("away")

    monkeypatch.setattr(Handoff, "release", away)
    monkeypatch.setattr(consumer_module, "_RELEASE_S", 0.3)
    monkeypatch.setattr(consumer_module, "_CANCEL_S", 0.3)
    work = Endless()
    member = Member(redis_server.url, client, judge(), work, concurrency=1)
    await member.start()
    await put(client, 1)
    await until_begun(work)
    await put(client, 2)
    await client.xreadgroup("judge", "a", {STREAM: ">"}, count=1)
    before = {outcome: counted(outcome) for outcome in Outcome}
    await member.stop(drain_s=0)
    assert {outcome: counted(outcome) - was for outcome, was in before.items() if counted(outcome) != was} == {
        Outcome.ABANDONED: 2
    }
    assert await pending(client) == [("a", 1), ("a", 1)]
