"""A consumer gets an entry again that it still works on, as after a Redis that stood still for longer than a lease."""

import asyncio
import threading

from tests.helpers.consumers import KEYS, Member, age, fields, judge, step
from tests.helpers.waiting import until


async def test_a_late_heartbeat_about_the_earlier_delivery_does_not_stop_the_consumer(redis_server, client):
    topic = judge(timeout_s=60)
    stream = KEYS.stream(topic)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def work(one):
        if one.input["number"] == 1:
            started.set()
            await go_on.wait()
        return {}

    member = Member(redis_server.url, client, topic, work)
    beating, beat, answered = threading.Event(), threading.Event(), threading.Event()
    renew = member.leases._renew

    def late(**call):
        """A heartbeat that is on its way for a while. By the next one the consumer knows what it said."""
        if beating.is_set():
            answered.set()
        beating.set()
        beat.wait(60)
        return renew(**call)

    await member.start()
    try:
        await client.xadd(stream, fields(step(1)))
        await asyncio.wait_for(started.wait(), 60)
        member.leases._renew = late  # type: ignore[assignment]
        assert await asyncio.to_thread(beating.wait, 60)
        await age(client, stream)

        async def reclaimed():
            (one,) = await client.xpending_range(stream, "judge", "-", "+", 1)
            return one["times_delivered"] == 2

        await until(reclaimed)
        beat.set()
        assert await asyncio.to_thread(answered.wait, 60)
        go_on.set()
        await client.xadd(stream, fields(step(9)))

        async def done():
            return await client.xlen(KEYS.done) == 2

        await until(done)
    finally:
        beat.set()
        go_on.set()
        await member.stop()


async def test_stopping_waits_for_the_second_run_too(redis_server, client):
    topic = judge(timeout_s=60)
    stream = KEYS.stream(topic)
    starts, go_on = [], [asyncio.Event(), asyncio.Event()]

    async def work(_one):
        starts.append(1)
        await go_on[len(starts) - 1].wait()
        return {}

    member = Member(redis_server.url, client, topic, work)
    await member.start()
    await client.xadd(stream, fields(step(1)))
    await until(lambda: _truth(len(starts) == 1))
    await age(client, stream)
    await until(lambda: _delivered(client, stream, 2))
    go_on[0].set()  # the first run ends as stale, the second one begins
    await until(lambda: _truth(len(starts) == 2))
    asyncio.get_running_loop().call_later(0.5, go_on[1].set)
    await member.stop()
    assert await client.xlen(KEYS.done) == 1


async def _truth(value):
    return value


async def _delivered(client, stream, times):
    (one,) = await client.xpending_range(stream, "judge", "-", "+", 1)
    return one["times_delivered"] == times
