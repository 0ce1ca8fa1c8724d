"""Redis that dies, forgets, is full, or is another one."""

import asyncio
import os
from pathlib import Path

from octollm.runtime.embedded.process import Child
from octollm.runtime.embedded.redis import find_server
from octollm.runtime.settings import load_settings
from scenarios import Landed, MissedError, Ring, scenario

_LANE = "{l0}:"
_TRIES = 5


@scenario("redis_killed")
async def redis_killed(ring: Ring) -> Landed:
    """kill -9 and a restart: the page cache survives, so nothing is lost."""
    await ring.stage.kill_redis()
    await asyncio.sleep(ring.rng.uniform(0.2, 1.0))
    await ring.stage.start_redis()
    return Landed("killed with -9 and started again")


async def _power_loss(ring: Ring, *, fsync: str) -> Landed:
    """Cut the append-only file back to what had been synced: that is what a machine without power keeps."""
    async with ring.stage.client() as client:
        await client.config_set("appendfsync", fsync)
        if fsync == "everysec":
            # Stop syncing, so that there is something to lose: what comes now is only in the page cache.
            await client.config_set("appendfsync", "no")
    aof = _incremental(ring.stage.redis_dir)
    synced = aof.stat().st_size
    for _ in range(8):
        ring.load.send(ring.load.order({}))
    await asyncio.sleep(0.9)
    await ring.stage.kill_redis()
    written = aof.stat().st_size
    if fsync == "everysec":
        os.truncate(aof, synced)
    await ring.stage.start_redis()
    if fsync == "everysec" and written <= synced:
        raise MissedError("nothing had been written since the last sync")
    lost = written - synced if fsync == "everysec" else 0
    return Landed(f"{lost} bytes of the append-only file were lost ({fsync})", loss="redis" if lost else "none")


@scenario("power_loss_everysec")
async def power_loss_everysec(ring: Ring) -> Landed:
    """What was answered in the last second may be gone, and everything before it must heal."""
    return await _power_loss(ring, fsync="everysec")


@scenario("power_loss_always")
async def power_loss_always(ring: Ring) -> Landed:
    """Every write is on disk before its answer: nothing may be gone."""
    landed = await _power_loss(ring, fsync="always")
    async with ring.stage.client() as client:
        await client.config_set("appendfsync", "everysec")
    return landed


def _incremental(folder: Path) -> Path:
    """The file that Redis appends to."""
    files = sorted((folder / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise MissedError("Redis has no append-only file")
    return files[-1]


@scenario("flushall")
async def flushall(ring: Ring) -> Landed:
    """Everything Redis knew is gone at once; what Postgres knows must heal."""
    async with ring.stage.client() as client:
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
        for door in ("http0", "http1", "http0", "http1"):
            ring.load.send(ring.load.order({}, door=door))
        await asyncio.sleep(2)
    finally:
        async with ring.stage.client() as client:
            await client.config_set("maxmemory", 0)
    if ring.load.retry_after == before:
        raise MissedError("no producer was told to come back later")
    return Landed(f"{ring.load.retry_after - before} submissions were told to come back later")


@scenario("promoted_replica")
async def promoted_replica(ring: Ring) -> Landed:
    """A replica that lags is promoted; the old master then answers READONLY to whoever still speaks to it."""
    stage = ring.stage
    folder = stage.folder / f"replica-{ring.rng.randrange(10**6)}"
    folder.mkdir()
    port = stage.take_port()
    program, _ = find_server(load_settings().redis.server)
    command = [
        *(program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""),
        *("--replicaof", f"127.0.0.1 {stage.redis_port}", "--appendonly", "no"),
    ]
    replica = await Child.start("replica", command, log=folder / "redis.log", cwd=folder)
    try:
        await stage.until(lambda: _in_sync(port), "the replica in sync", 20)
        async with stage.client_at(port) as far:
            # It no longer follows: what the master takes from now on the replica does not know.
            await far.execute_command("REPLICAOF", "127.0.0.1", "1")
            for _ in range(6):
                ring.load.send(ring.load.order({}))
            await asyncio.sleep(0.7)
            await far.execute_command("REPLICAOF", "NO", "ONE")
        async with stage.client() as near:
            await near.execute_command("REPLICAOF", "127.0.0.1", str(port))
            await asyncio.sleep(1.5)  # everybody meets READONLY, and the old master takes over what the new one has
            await stage.until(lambda: _in_sync(stage.redis_port), "the old master in sync", 20)
            await near.execute_command("REPLICAOF", "NO", "ONE")
    finally:
        await replica.stop()
    return Landed("a replica that lagged was promoted and its data taken over", loss="redis")


async def _in_sync(port: int) -> bool:
    import redis.asyncio  # noqa: PLC0415

    client = redis.asyncio.Redis(port=port)
    try:
        return (await client.info("replication")).get("master_link_status") == "up"
    except redis.exceptions.RedisError:
        return False
    finally:
        await client.aclose()
