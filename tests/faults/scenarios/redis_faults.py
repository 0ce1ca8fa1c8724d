"""Redis that dies, loses its data or is full."""

import asyncio

from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.intake import answers_before_intake

_LANE = "{l0}:"
_TRIES = 20


@scenario("redis_killed")
async def redis_killed(ring: Ring) -> Landed:
    """kill -9 and a restart: the page cache survives, so nothing is lost."""
    await ring.stage.kill_redis()
    await asyncio.sleep(ring.rng.uniform(0.2, 1.0))
    await ring.stage.start_redis()
    return Landed("killed with -9 and started again")


@scenario("flushall")
async def flushall(ring: Ring) -> Landed:
    """Everything Redis knew is gone at once; what Postgres knows must heal."""
    async with answers_before_intake(ring), ring.stage.client() as client:
        await client.flushall()
    return Landed("FLUSHALL", loss="redis")


@scenario("stream_deleted")
async def stream_deleted(ring: Ring) -> Landed:
    """An arm's stream with its group in the middle of work, and the one on which steps end."""
    streams = [f"{_LANE}arm.effect:normal", f"{_LANE}steps.done"]
    ring.rng.shuffle(streams)
    gone = [await _delete(ring, stream) for stream in streams]
    return Landed(f"deleted: {', '.join(gone)}", count=len(gone), loss="redis")


async def _delete(ring: Ring, stream: str) -> str:
    """With something on it."""
    async with ring.stage.client() as client:
        for _ in range(_TRIES):
            for _ in range(8):
                ring.load.send(ring.load.order({"sleep_ms": 300}))
            for _ in range(100):
                await asyncio.sleep(0.02)
                if entries := await client.xlen(stream):
                    await client.delete(stream)
                    return f"{stream} with {entries} entries"
    raise MissedError(f"{stream} was empty whenever somebody looked")


@scenario("redis_full")
async def redis_full(ring: Ring) -> Landed:
    """noeviction at the limit: nothing new is taken, running work ends, and everything comes back by itself."""
    before = ring.load.retry_after
    async with ring.stage.client() as client:
        used = int((await client.info("memory"))["used_memory"])
        await client.config_set("maxmemory", used // 2)
    try:
        sent = [ring.load.send(ring.load.order({}, source=source)) for source in ("http0", "http1", "http0", "http1")]

        def answered() -> bool:
            return ring.load.retry_after > before or all(one.done() for one in sent)

        await ring.stage.until(answered, "a 503", TIMEOUT_S)
        await asyncio.sleep(2)
    finally:
        async with ring.stage.client() as client:
            await client.config_set("maxmemory", 0)
    refused = ring.load.retry_after - before
    broken = () if refused else ("every submission was accepted although Redis was full",)
    return Landed(f"{refused} submissions were asked to come back later", excuses=("evicted",), broken=broken)
