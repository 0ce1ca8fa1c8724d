"""Roles that start while Redis cannot serve them: what passes is waited for, what does not ends the process."""

import asyncio
import contextlib

import pytest
import redis.asyncio
from redis.exceptions import RedisError

from octollm.errors import StoreRefusedError
from octollm.resources import schemas_path
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import load_topology
from tests.helpers.consumers import KEYS, fields, judge, step
from tests.helpers.full_disk import refuse_writes
from tests.helpers.waiting import until

STREAM = KEYS.stream(judge())


async def _full(client):
    await client.config_set("maxmemory", 1)
    return lambda: client.config_set("maxmemory", 0)


async def _replica(client):
    await client.replicaof("127.0.0.1", "1")
    return lambda: client.replicaof("NO", "ONE")


async def _busy(client):
    await client.config_set("busy-reply-threshold", 1)
    pool = client.connection_pool
    other = redis.asyncio.Redis(host=pool.connection_kwargs["host"], port=pool.connection_kwargs["port"])
    running = asyncio.ensure_future(other.eval("while true do end", 0))

    async def end():
        await client.script_kill()
        with contextlib.suppress(RedisError):
            await running
        await other.aclose()

    return end


STATES = {
    "OOM": _full,
    "READONLY": _replica,
    "MISCONF": refuse_writes,
    "BUSY": _busy,
}


def judging(stop):
    settings = load_settings()
    topology = load_topology(topology_path(settings), schemas_path())
    return run_roles(["judge"], settings, topology, concurrency=None, stop=stop)


async def refused(client, code):
    """Whether Redis has given that answer to a role."""
    with contextlib.suppress(RedisError):
        return f"errorstat_{code}" in await client.info("errorstats")
    return False


@pytest.fixture(autouse=True)
def url(redis_server, monkeypatch):
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)


@pytest.mark.parametrize("code", [code for code in STATES if code != "BUSY"])
async def test_a_role_that_starts_waits_and_then_works(client, code):
    await client.xadd(STREAM, fields(step(1)))
    over = await STATES[code](client)
    stop = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(judging(stop))
        await until(lambda: refused(client, code))
        assert not running.done()
        await over()
        await until(lambda: client.xlen(KEYS.done))
        stop.set()


async def test_a_role_that_starts_waits_for_the_end_of_a_script(client):
    await client.xadd(STREAM, fields(step(1)))
    over = await STATES["BUSY"](client)
    stop = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(judging(stop))
        await asyncio.wait((running,), timeout=1)
        assert not running.done()
        await over()
        assert await refused(client, "BUSY")
        await until(lambda: client.xlen(KEYS.done))
        stop.set()


async def test_a_role_that_waits_at_its_start_can_be_stopped(client):
    await refuse_writes(client)
    stop = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(judging(stop))
        await until(lambda: refused(client, "MISCONF"))
        stop.set()
    assert await client.xlen(KEYS.done) == 0


@pytest.mark.parametrize(
    ("user", "cause"),
    [
        ("limited:wrong", "Redis refuses to tell about itself: "),
        ("limited:secret", "Redis refuses to create the consumer groups of arm.judge: "),
    ],
)
async def test_a_login_or_a_permission_that_is_refused_ends_the_start(client, redis_server, monkeypatch, user, cause):
    words = ("reset", "on", ">secret", "~*", "&*", "+@all", "-xgroup")
    await client.execute_command("ACL", "SETUSER", "limited", *words)
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url.replace("redis://", f"redis://{user}@"))
    with pytest.raises(StoreRefusedError, match=cause):
        async with asyncio.timeout(30):
            await judging(asyncio.Event())
