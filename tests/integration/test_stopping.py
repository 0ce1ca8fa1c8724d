"""Stopping: what waits for its turn in quarantine has not begun, and is given back."""

import asyncio

from tests.helpers.consumers import KEYS, Member, fields, judge, step
from tests.helpers.waiting import until


async def test_what_waits_in_quarantine_is_given_back_uncharged(redis_server, client):
    topic = judge(timeout_s=60)
    stream = KEYS.stream(topic)
    begun, go_on = [], asyncio.Event()

    async def work(one):
        begun.append(one.input["number"])
        await (go_on.wait() if one.input["number"] == 1 else asyncio.Event().wait())
        return {}

    member = Member(redis_server.url, client, topic, work)
    await client.xgroup_create(stream, "judge", "0", mkstream=True)
    await client.xadd(stream, fields(step(7)))
    await client.xreadgroup("judge", "killed", {stream: ">"}, count=1)
    await member.start()
    await client.xadd(stream, fields(step(1)))

    async def one_runs():
        return begun == [1]

    await until(one_runs)
    for one in await client.xpending_range(stream, "judge", "-", "+", 9, "killed"):
        await client.xclaim(stream, "judge", "killed", 0, [one["message_id"]], idle=60000, justid=True)

    async def reclaimed():
        pending = await client.xpending_range(stream, "judge", "-", "+", 9, "a")
        return any(one["times_delivered"] == 2 for one in pending)

    # Only the dead worker's entry counts as old.
    await until(reclaimed)

    async def given_back():
        return bool(await client.xpending_range(stream, "judge", "-", "+", 9, "released"))

    stopping = asyncio.create_task(member.stop())
    await until(given_back)
    go_on.set()
    await stopping
    pending = await client.xpending_range(stream, "judge", "-", "+", 9)
    assert begun == [1]
    assert [(one["consumer"], one["times_delivered"]) for one in pending] == [(b"released", 1)]
