"""The network between the processes and their servers: slow, cut, half-open."""

import asyncio
import contextlib

from octollm.errors import StartError
from tests.faults.ledger import now
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario

_NOTICE_S = 90.0
"""Longer than the longest time limit of a request, the 60 s of a statement in Postgres."""


@scenario("latency")
async def latency(ring: Ring) -> Landed:
    """Everything takes 30 to 80 ms longer."""
    ways = [*ring.stage.proxies("redis"), *ring.stage.proxies("postgres")]
    for way in ways:
        way.delay_s = ring.rng.uniform(0.03, 0.08)
    await asyncio.sleep(4)
    for way in ways:
        way.delay_s = 0.0
    return Landed(f"{len(ways)} ways were slow for 4 s")


@scenario("reset")
async def reset(ring: Ring) -> Landed:
    """Every connection breaks, three times."""
    cut = 0
    for _ in range(3):
        cut += sum(way.reset() for way in (*ring.stage.proxies("redis"), *ring.stage.proxies("postgres")))
        await asyncio.sleep(ring.rng.uniform(0.2, 0.6))
    if not cut:
        raise MissedError("there was no connection to cut")
    return Landed(f"{cut} connections were cut", count=3)


@scenario("stalled")
async def stalled(ring: Ring) -> Landed:
    """Connections stay and nothing passes, for longer than a lease; then they break."""
    one = ring.rng.choice(ring.stage.of("effect"))
    other = ring.rng.choice(ring.stage.of("orchestrator"))
    one.redis.hold()
    other.postgres.hold()
    await asyncio.sleep(7)
    one.redis.reset()
    other.postgres.reset()
    one.redis.release()
    other.postgres.release()
    return Landed(f"{one.name} had no Redis and {other.name} no Postgres for 7 s, without a reset")


@scenario("half_open")
async def half_open(ring: Ring) -> Landed:
    """Connections are lost without a reset to either side: an arm's to Redis, an orchestrator's to Postgres.

    Nothing resets them. Each process has to find out by its own time limits, connect again and go on.
    """
    arm = ring.rng.choice(ring.stage.of("effect"))
    orchestrator = ring.rng.choice(ring.stage.of("orchestrator"))

    def connected() -> bool:
        return bool(arm.redis.connections and orchestrator.postgres.connections)

    await ring.stage.until(connected, "connections to lose", TIMEOUT_S)
    ways = {f"{arm.name} to Redis": arm.redis, f"{orchestrator.name} to Postgres": orchestrator.postgres}
    opened = {way: way.opened for way in ways.values()}
    began = now()
    lost = {name: way.lose() for name, way in ways.items()}
    took: dict[str, float] = {}

    def all_noticed() -> bool:
        for name, way in ways.items():
            if name not in took and way.opened > opened[way] and not way.unnoticed:
                took[name] = now() - began
        return len(took) == len(ways)

    await asyncio.sleep(1)  # so that requests meet the loss
    with contextlib.suppress(StartError):
        await ring.stage.until(all_noticed, "new connections", _NOTICE_S)
    found = [f"{name}: {lost[name]} lost, noticed within {seconds:.1f} s" for name, seconds in took.items()]
    silent = tuple(
        f"{name}: lost connections were still waited for after {_NOTICE_S:.0f} s" for name in ways if name not in took
    )
    return Landed("; ".join((*found, *silent)), broken=silent)
