"""Steps of ended runs and after their deadline, in an arm's worker on a real Redis: they never start."""

import asyncio
from collections import Counter

import pytest

from octollm.contracts.ids import later, utc_now
from octollm.errors import NeedsPersonError, TransientError
from octollm.protocol.handoff import Entry
from octollm.protocol.outcomes import MESSAGES
from octollm.protocol.run_watch import RedisClock, RunWatch
from tests.helpers.consumers import KEYS, consuming, fields, judge, step
from tests.helpers.waiting import until

STREAM = KEYS.stream(judge())


async def watch_of(client, ahead_s=0):
    """A watch; `ahead_s`: how much later its clock is than the moment at which the test's entries are published."""
    clock = RedisClock()
    seconds, microseconds = await client.time()
    clock.sync((seconds + ahead_s) * 1000 + microseconds // 1000)
    return RunWatch(client, "l0", clock)


def run_ended():
    return MESSAGES.labels("arm.judge", "run_ended")._value.get()


async def worked(redis_server, client, work, watch, **options):
    """What is on `steps.done` when the arm has dealt with every step."""

    async def empty():
        return await client.xlen(STREAM) == 0

    async with consuming(redis_server.url, client, judge(), work, watch=watch, **options), asyncio.timeout(60):
        await until(empty)
    return [entry[b"id"].decode().partition(".")[0] for _, entry in await client.xrange(KEYS.done)]


async def test_a_queued_step_of_an_ended_run_is_not_started(redis_server, client):
    started = []

    async def work(one):
        started.append(one.task)
        return {}

    await client.zadd(KEYS.ended_runs, {f"{step(n).task}.1 default": 2**40 for n in (2, 5)})
    await client.zadd(KEYS.ended_runs, {f"{step(3).task}.2 default": 2**40, f"{step(4).task}.1 other": 2**40})
    for number in range(1, 7):
        await client.xadd(STREAM, fields(step(number)))
    before = run_ended()
    done = await worked(redis_server, client, work, await watch_of(client, ahead_s=60))
    assert sorted(started) == sorted(done) == [step(n).task for n in (1, 3, 4, 6)]
    assert run_ended() == before + 2


def entry(run, tenant="t", id_="1-0"):
    return Entry(STREAM, id_, 1, {b"id": f"{run}.verdict.0.1".encode(), b"tenant": tenant.encode()})


async def test_steps_that_were_read_together_share_a_look_up_and_fresh_ones_need_none(client, monkeypatch):
    watch, calls = await watch_of(client), Counter[str]()
    real = client.zmscore

    async def counted(key, members):
        calls["zmscore"] += 1
        return await real(key, members)

    monkeypatch.setattr(client, "zmscore", counted)
    await client.zadd(KEYS.ended_runs, {"a.1 t": 2**40})
    read = [entry("a.1"), entry("b.1"), entry("a.1"), entry("a.2"), entry("a.1", tenant="u")]
    await watch.look_up(read)
    assert [watch.has_ended(one) for one in read] == [True, False, True, False, False]
    assert calls == {"zmscore": 1}
    seconds, _ = await client.time()
    await watch.look_up([entry("c.1", id_=f"{seconds * 1000 + 2000}-0")])
    assert calls == {"zmscore": 1}
    assert not watch.is_fresh(f"{seconds * 1000 - 2000}-0")
    assert not watch.is_fresh("odd-0")


async def test_while_redis_is_unavailable_no_run_has_ended(client, monkeypatch):
    async def away(*_):
        raise ConnectionError

    monkeypatch.setattr(client, "zmscore", away)
    watch = await watch_of(client)
    await watch.look_up([entry("a.1")])
    assert not watch.has_ended(entry("a.1"))


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

    await client.xadd(STREAM, fields(step(1, deadline_at=later(utc_now(), 1))))
    done = await worked(redis_server, client, work, await watch_of(client))
    assert stopped.is_set()
    assert done == []
    assert (await client.zcard(KEYS.schedule), await client.xlen(KEYS.dead), await client.hlen(KEYS.in_flight)) == (
        0,
        0,
        0,
    )
