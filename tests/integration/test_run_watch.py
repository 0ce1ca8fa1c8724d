"""Steps of ended runs and after their deadline, in an arm's worker on a real Redis: they never start."""

import asyncio
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from octollm.contracts.ids import later, utc_now
from octollm.errors import NeedsPersonError, TransientError
from octollm.protocol.control import listen
from octollm.protocol.handoff import Entry
from octollm.protocol.outcomes import MESSAGES
from octollm.protocol.run_watch import RedisClock, RunWatch
from tests.helpers.consumers import KEYS, consuming, fields, judge, step
from tests.helpers.waiting import until

STREAM = KEYS.stream(judge())
RUN, LATER = (f"{step(number).task}.1" for number in (1, 2))


async def watch_of(client, ahead_s=0):
    """A watch that knows of no ended run; its clock is `ahead_s` ahead of Redis."""
    clock = RedisClock()
    seconds, microseconds = await client.time()
    clock.sync((seconds + ahead_s) * 1000 + microseconds // 1000)
    return RunWatch(client, "l0", clock)


@asynccontextmanager
async def listening(redis_server, watch):
    """The watch follows the control channel, and has loaded what had ended before."""

    async def nothing(_lane, _run):
        pass

    async def loaded():
        return not watch.is_unsure(entry("nothing.1"))

    ear = asyncio.create_task(listen(redis_server.url, 2, [watch], nothing))
    try:
        await until(loaded)
        yield watch
    finally:
        ear.cancel()
        await asyncio.wait([ear])


@pytest.fixture
def questions(client, monkeypatch):
    """How many members each question to Redis named, in order."""
    asked = []
    real = client.zmscore

    async def counted(key, members):
        asked.append(len(members))
        return await real(key, members)

    monkeypatch.setattr(client, "zmscore", counted)
    return asked


def run_ended():
    return MESSAGES.labels("arm.judge", "run_ended")._value.get()


async def worked(redis_server, client, work, watch, **options):
    """What is on `steps.done` when the arm has dealt with every step."""

    async def empty():
        return await client.xlen(STREAM) == 0

    async with consuming(redis_server.url, client, judge(), work, watch=watch, **options), asyncio.timeout(60):
        await until(empty)
    return [entry[b"id"].decode().partition(".")[0] for _, entry in await client.xrange(KEYS.done)]


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_queued_step_of_an_ended_run_is_not_started(redis_server, client, loaded):
    started = []

    async def work(one):
        started.append(one.task)
        return {}

    await client.zadd(KEYS.ended_runs, {f"{step(n).task}.1 default": 2**40 for n in (2, 5)})
    await client.zadd(KEYS.ended_runs, {f"{step(3).task}.2 default": 2**40, f"{step(4).task}.1 other": 2**40})
    for number in range(1, 7):
        await client.xadd(STREAM, fields(step(number)))
    before = run_ended()
    watch = await watch_of(client)
    if not loaded:
        done = await worked(redis_server, client, work, watch)
    else:
        async with listening(redis_server, watch):
            done = await worked(redis_server, client, work, watch)
    assert sorted(started) == sorted(done) == [step(n).task for n in (1, 3, 4, 6)]
    assert run_ended() == before + 2


def entry(run, tenant="t", id_="1-0"):
    return Entry(STREAM, id_, 1, {b"id": f"{run}.verdict.0.1".encode(), b"tenant": tenant.encode()})


async def test_without_the_control_channel_steps_that_were_read_together_share_a_question(client, questions):
    watch = await watch_of(client)
    await client.zadd(KEYS.ended_runs, {"a.1 t": 2**40})
    read = [entry("a.1"), entry("b.1"), entry("a.1"), entry("a.2"), entry("a.1", tenant="u")]
    await watch.look_up(read)
    assert [await watch.has_ended(one) for one in read] == [True, False, True, False, False]
    assert questions == [5]


async def test_with_it_only_steps_of_announced_runs_cost_a_question(redis_server, client, questions):
    await client.zadd(KEYS.ended_runs, {f"{RUN} t": 2**40})
    async with listening(redis_server, await watch_of(client)) as watch:
        read = [entry(RUN), entry(LATER), entry(RUN, tenant="u"), entry("b.1")]
        await watch.look_up(read)
        assert questions == [2]
        assert [await watch.has_ended(one) for one in read] == [True, False, False, False]
        assert questions == [2, 1]  # the other tenant's is asked about once more, right before it starts

        async def announced():
            return watch.is_unsure(entry(LATER))

        await client.zadd(KEYS.ended_runs, {f"{LATER} t": 2**40})
        await client.publish(KEYS.control, f"ended {LATER}")
        await until(announced)
        assert await watch.has_ended(entry(LATER))
        assert questions == [2, 1, 1]


async def test_a_lost_control_channel_loads_what_it_missed(redis_server, client):
    async with listening(redis_server, await watch_of(client)) as watch:
        await client.zadd(KEYS.ended_runs, {f"{RUN} t": 2**40})  # without a word on the channel
        assert not watch.is_unsure(entry(RUN))
        await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

        async def missed():
            return watch.is_unsure(entry(RUN)) and not watch.is_unsure(entry(LATER))

        await until(missed)
        assert await watch.has_ended(entry(RUN))
    assert watch.is_unsure(entry(LATER))


async def test_a_silent_control_channel_is_not_relied_on(client, monkeypatch):
    watch = await watch_of(client)
    await watch.load()
    watch.heard()
    assert not watch.is_unsure(entry("a.1"))
    heard = monotonic()
    monkeypatch.setattr("octollm.protocol.run_watch.monotonic", lambda: heard + 8)
    assert watch.is_unsure(entry("a.1"))


@pytest.mark.parametrize("when", ["loaded", "announced"])
async def test_more_ended_runs_than_fit_cost_questions_about_older_steps(client, monkeypatch, when):
    monkeypatch.setattr("octollm.protocol.run_watch._MOST", 3)
    watch = await watch_of(client)
    if when == "loaded":
        await client.zadd(KEYS.ended_runs, {f"a.{number} t": 2**40 for number in range(1, 5)})
        await watch.load()
    else:
        await watch.load()
        for number in range(1, 5):
            watch.announce(f"a.{number}")
    watch.heard()
    seconds, _ = await client.time()
    assert watch.is_unsure(entry("b.1", id_=f"{seconds * 1000 - 1}-0"))
    assert watch.is_unsure(entry("b.1", id_="odd-0"))
    assert not watch.is_unsure(entry("b.1", id_=f"{seconds * 1000 + 3000}-0"))


async def test_while_redis_is_unavailable_no_run_has_ended(client, monkeypatch):
    async def away(*_):
        raise ConnectionError

    monkeypatch.setattr(client, "zmscore", away)
    watch = await watch_of(client)
    await watch.look_up([entry("a.1")])
    assert not await watch.has_ended(entry("a.1"))


@pytest.mark.parametrize("ahead_s", [0, 3600])
async def test_redis_clock_decides_whether_a_deadline_has_passed(redis_server, client, ahead_s):
    started = []

    async def work(one):
        started.append(one.task)
        return {}

    await client.xadd(STREAM, fields(step(1, deadline_at=later(utc_now(), 1800))))
    done = await worked(redis_server, client, work, await watch_of(client, ahead_s))
    assert started == done == ([] if ahead_s else [step(1).task])


@pytest.mark.parametrize("error", [TransientError("x", "x"), NeedsPersonError("x", "x"), KeyError("x"), None])
async def test_after_its_deadline_a_step_is_stopped_and_neither_tried_again_nor_a_dead_letter(
    redis_server, client, error
):
    stopped = asyncio.Event()

    async def work(_one):
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            stopped.set()
            if error is not None:
                raise error from None
            raise
        return {}

    await client.xadd(STREAM, fields(step(1, deadline_at=later(utc_now(), 3))))
    done = await worked(redis_server, client, work, await watch_of(client))
    assert stopped.is_set()
    assert done == []
    assert (await client.zcard(KEYS.schedule), await client.xlen(KEYS.dead), await client.hlen(KEYS.in_flight)) == (
        0,
        0,
        0,
    )
