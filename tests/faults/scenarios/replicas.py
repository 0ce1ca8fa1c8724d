"""A replica takes the place of the Redis that it followed."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio

from octollm.devstack.embedded.process import Child
from octollm.devstack.embedded.redis import find_server
from octollm.settings.loader import load_settings
from tests.faults.proxy import Proxy
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.intake import answers_before_intake

_CONFIRMED = "replicated(1)"
_LAG_S = 0.15
"""Of the replica, each way: long against the time in which a 202 is given."""


@scenario("promoted_replica")
async def promoted_replica(ring: Ring) -> Landed:
    """A replica that lags is promoted; the old master then answers READONLY to every client that still uses it."""
    stage = ring.stage
    async with _replica(ring, stage.redis_port) as port:
        async with stage.client_at(port) as far:
            # It no longer follows: what the master takes from now on the replica does not know.
            await far.execute_command("REPLICAOF", "127.0.0.1", "1")
            for _ in range(6):
                ring.load.send(ring.load.order({}))
            await asyncio.sleep(0.7)
            await far.execute_command("REPLICAOF", "NO", "ONE")
        async with stage.client() as near:
            await near.execute_command("REPLICAOF", "127.0.0.1", str(port))
            await asyncio.sleep(1.5)  # every client meets READONLY, and the old master copies the data of the new one
        await _fail_over(ring)
    return Landed("a replica that lagged was promoted, with the data that it had", loss="redis", spares=("replicated",))


@scenario("primary_lost")
async def primary_lost(ring: Ring) -> Landed:
    """The machine of Redis is gone with its disk, and a replica that lagged is promoted: it has what it confirmed."""
    stage = ring.stage
    way = Proxy(("127.0.0.1", stage.redis_port))
    await way.start()
    try:
        async with _replica(ring, way.port) as port:
            way.delay_s = _LAG_S
            async with answers_before_intake(ring, _CONFIRMED):
                answered = dict(ring.load.answered)
                way.hold()  # what is under way to the replica never arrives
                await stage.kill_redis()
                way.reset()
            async with stage.client_at(port) as far:
                await far.execute_command("REPLICAOF", "NO", "ONE")
            shutil.rmtree(stage.redis_dir)
            # At the old address, so that everybody finds what the replica had.
            await stage.start_redis("--replicaof", f"127.0.0.1 {port}")
            await _fail_over(ring)
    finally:
        await way.stop()
    if not answered.get(_CONFIRMED, 0) and stage.durability != "stored":
        raise MissedError(f"no submission was answered as {_CONFIRMED}")
    return Landed(f"Redis died for good; 202s until then by mode: {answered}", loss="redis", spares=("replicated",))


async def _fail_over(ring: Ring) -> None:
    """The Redis that everybody speaks to has what the promoted replica has, and takes writes again."""
    stage = ring.stage
    await stage.until(lambda: _in_sync(stage.redis_port), "the old address in sync", TIMEOUT_S)
    async with stage.client() as near:
        await near.execute_command("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def _replica(ring: Ring, of: int) -> AsyncIterator[int]:
    """The port of a Redis that follows the one on the port `of`."""
    stage = ring.stage
    folder = stage.folder / f"replica-{ring.rng.randrange(10**6)}"
    folder.mkdir()
    port = stage.take_port()
    program, _ = find_server(load_settings().redis.server)
    command = [
        *(program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""),
        *("--replicaof", f"127.0.0.1 {of}", "--appendonly", "no", "--repl-diskless-sync-delay", "0"),
    ]
    replica = await Child.start("replica", command, log=folder / "redis.log", cwd=folder)
    try:
        await stage.until(lambda: _in_sync(port), "the replica in sync", TIMEOUT_S)
        yield port
    finally:
        await replica.stop()


async def _in_sync(port: int) -> bool:
    client = redis.asyncio.Redis(port=port)
    try:
        return (await client.info("replication")).get("master_link_status") == "up"
    except redis.exceptions.RedisError:
        return False
    finally:
        await client.aclose()
