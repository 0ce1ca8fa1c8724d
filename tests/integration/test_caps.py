"""The cap on what runs of one tenant on one arm, on a real Redis: it survives crashes, and holds no other tenant up."""

import asyncio
from dataclasses import replace
from functools import partial

from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Completion
from octollm.supervision import Supervisor
from tests.helpers.consumers import CLAIM_ALL, KEYS, Member, consuming
from tests.helpers.fairness import HELD, JUDGE, STREAM, drained, enough, limited, made, read, send
from tests.helpers.waiting import until


async def test_entries_that_were_there_before_the_cap_count_and_ghosts_do_not(client):
    before = made(client, limited(window=None))
    await send(before, range(3))
    wiring = limited(window=None, cap=4)
    handoff = made(client, wiring)
    await handoff.promote()
    await send(handoff, range(3, 10))
    assert await client.xlen(STREAM) == 4
    ids = [entry for entry, _ in await client.xrange(STREAM)]
    await client.xdel(STREAM, *ids[:3])  # by hand
    await handoff.promote()
    assert await client.xlen(STREAM) == 4


async def test_a_cap_holds_over_priorities_and_low_does_not_starve(client):
    handoff = made(client, limited(window=8, cap=2))
    for priority in ("low", "normal", "high"):
        await send(handoff, range(400), priority=priority)
    order = []
    for _ in range(300):
        lengths = [await client.xlen(stream) for stream in KEYS.streams(JUDGE)]
        assert sum(lengths) == 2
        for stream in KEYS.streams(JUDGE):
            for held, _, _ in await read(client, stream=stream):
                order.append(stream.rpartition(":")[2])
                await handoff.complete([Completion(held, ())])
    counts = [order.count(priority) for priority in ("high", "normal", "low")]
    assert counts[0] > sum(counts) / 2, counts
    assert min(counts) > 0, counts


async def test_a_tenant_at_its_cap_does_not_hold_up_another(client):
    handoff = made(client, limited(window=8, cap=2))
    await send(handoff, range(50))
    await send(handoff, range(50), tenant="bob")
    got = [(tenant, number) for _, tenant, number in await read(client, count=10)]
    assert got == [("ann", 0), ("ann", 1), ("bob", 0), ("bob", 1)]


async def test_an_entry_given_up_on_frees_its_place(client):
    wiring = limited(window=8, cap=1)
    handoff = made(client, wiring)
    await send(handoff, range(3))
    ((held, _, _),) = await read(client)
    await client.xclaim(STREAM, "judge", "a", 0, [held.entry], idle=60_000, retrycount=5, justid=True)
    assert await handoff.claim(STREAM, wiring.topics["arm.judge"], CLAIM_ALL) == ([], [held.entry], [])
    assert [number for _, _, number in await read(client, count=5)] == [1]


async def test_two_workers_never_run_more_of_a_tenant_than_its_cap(redis_server, client):
    """Also while one is killed again and again and the other takes its entries over."""
    wiring = limited(window=8, cap=3)
    topic = replace(wiring.topics["arm.judge"], heartbeat_s=1, lease_s=5)
    running: dict[tuple[str, str], set[str]] = {}
    most: dict[str, int] = {}
    killed: set[str] = set()
    """From its death on a process runs nothing; here its handlers end a little later."""
    ended: dict[str, set[int]] = {"ann": set(), "bob": set()}

    def of(name):
        async def run(one):
            mine = running.setdefault((one.tenant, one.task), set())
            mine.add(name)
            busy = sum(1 for (tenant, _), who in running.items() if tenant == one.tenant and who - killed)
            most[one.tenant] = max(most.get(one.tenant, 0), busy)
            await asyncio.sleep(0.01)  # the work: long enough for others to run next to it
            try:
                if name.startswith("victim") and one.input["number"] % 20 == 7:
                    await asyncio.Event().wait()  # until it is killed
            finally:
                mine.discard(name)
            ended[one.tenant].add(one.input["number"])
            return {}

        return run

    handoff = made(client, wiring)
    for tenant in ("ann", "bob"):
        await send(handoff, range(120), tenant=tenant)
    fair = Fairness(wiring, "l0")

    async def promote():
        while True:
            await handoff.promote()
            await asyncio.sleep(0.05)

    supervisor = Supervisor()
    supervisor.spawn_loop("promote", promote())
    async with consuming(redis_server.url, client, topic, of("steady"), name="steady", fairness=fair):
        for round_ in range(3):
            member = Member(redis_server.url, client, topic, of(f"victim{round_}"), name=f"v{round_}", fairness=fair)
            await member.start()
            seen = sum(map(len, ended.values()))
            await until(partial(enough, ended, seen + 10))
            killed.add(f"victim{round_}")
            await member.kill()
        await until(lambda: enough(ended, 240))
        await until(lambda: drained(client))
    await supervisor.stop()
    assert most.keys() == {"ann", "bob"}
    assert max(most.values()) <= 3, most
    assert await client.exists(HELD) == 0
