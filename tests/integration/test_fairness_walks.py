"""Whatever order the scripts are called in, nothing is lost, sent twice, over the cap or out of its tenant's order."""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octollm.protocol.handoff import Completion
from tests.helpers.consumers import CLAIM_ALL, KEYS
from tests.helpers.fairness import JUDGE, STREAM, limited, made, read, send

TENANTS = ("ann", "bob", "cyd")
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(TENANTS), st.integers(1, 9)),
        st.tuples(st.just("read"), st.integers(1, 6)),
        st.tuples(st.just("finish"), st.integers(1, 6)),
        st.tuples(st.just("promote")),
        st.tuples(st.just("give up"), st.integers(0, 3)),
        st.tuples(st.just("lose turns")),
    ),
    max_size=25,
)


@pytest.mark.parametrize("cap", [None, 2])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
async def test_every_walk_ends_with_everything_done_once_and_in_order(client, cap, moves):
    await client.flushall()
    wiring = limited(window=3, cap=cap)
    handoff = made(client, wiring)
    sent, seen, holding = 0, [], []

    async def take(count):
        for held, tenant, number in await read(client, count=count):
            seen.append((tenant, number))
            holding.append(held)
        if cap is not None:
            running: defaultdict[str, int] = defaultdict(int)
            for _, entry in await client.xrange(STREAM):
                running[entry[b"tenant"]] += 1
            assert max(running.values(), default=0) <= cap

    async def finish(count):
        batch = [holding.pop(0) for _ in range(min(count, len(holding)))]
        if batch:
            await handoff.complete([Completion(held, ()) for held in batch])

    for move in moves:
        match move:
            case ("send", tenant, count):
                await send(handoff, range(sent, sent + count), tenant=tenant)
                sent += count
            case ("read", count):
                await take(count)
            case ("finish", count):
                await finish(count)
            case ("promote",):
                await handoff.promote()
            case ("give up", at) if at < len(holding):
                held = holding.pop(at)
                # Its worker died with it for the last time.
                await client.xclaim(STREAM, "judge", "a", 0, [held.entry], idle=60_000, retrycount=5, justid=True)
                assert (await handoff.claim(STREAM, JUDGE, CLAIM_ALL))[1] == [held.entry]
            case ("lose turns",):
                await client.delete(KEYS.ring(STREAM))
    for _ in range(sent + 5):
        await handoff.promote()
        await take(9)
        await finish(9)
    assert len(seen) == len(set(seen)) == sent
    for tenant in TENANTS:
        numbers = [number for one, number in seen if one == tenant]
        assert numbers == sorted(numbers)
    await handoff.promote()
    assert await client.exists(KEYS.waiting(STREAM), KEYS.ring(STREAM), KEYS.running(JUDGE)) == 0
    assert await client.xlen(STREAM) == 0
