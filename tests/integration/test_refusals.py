"""What Redis always refuses is not tried for ever: the process exits with the cause, or the one entry stays pending."""

import asyncio
import time

import pytest
from prometheus_client import REGISTRY

from octollm.consumer.leases import LeaseRenewer
from octollm.errors import WorkerError
from octollm.protocol.handoff import Entry, LeaseStatus
from octollm.protocol.operations import Lease
from octollm.protocol.outcomes import Outcome
from octollm.resources import schemas_path
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.supervision import Supervisor
from octollm.topology import load_topology
from tests.helpers.consumers import KEYS, Member, age, dead_workers, fields, judge, step
from tests.helpers.waiting import until

STREAM = KEYS.stream(judge())
BEYOND_EVERY_NUMBER = 2**60
"""A delivery that every script refuses: `number` in lua/lease.lua."""


async def _wrong_schedule(client):
    await client.set(KEYS.schedule, "a string")


async def _wrong_dead_letters(client):
    """An entry has had its last delivery, and nothing can be added to the dead letters."""
    await client.set(KEYS.dead, "a string")
    await dead_workers(client, STREAM, 1, [1])
    ((entry, _),) = await client.xrange(STREAM)
    await client.xclaim(STREAM, "judge", "killed", 0, [entry], idle=10**8, retrycount=99, justid=True)


async def _no_channels(client):
    await client.execute_command("ACL", "SETUSER", "default", "resetchannels")


async def _no_reading(client):
    await client.execute_command("ACL", "SETUSER", "default", "-xreadgroup")


REFUSED = {
    "promote l0": (_wrong_schedule, "look for due retries in lane l0: WRONGTYPE"),
    "claim arm.judge": (_wrong_dead_letters, "reclaim entries of arm.judge: WRONGTYPE"),
    "listen": (_no_channels, "listen on the control channels: "),
    "read arm.judge": (_no_reading, "read arm.judge: "),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_loop_that_is_always_refused_ends_the_process_with_the_cause(redis_server, client, monkeypatch, name):
    spoil, cause = REFUSED[name]
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    settings = load_settings()
    topology = load_topology(topology_path(settings), schemas_path())
    await spoil(client)
    with pytest.raises(WorkerError) as caught:
        async with asyncio.timeout(60):
            await run_roles(["judge"], settings, topology, concurrency=None, stop=asyncio.Event())
    assert f"'{name}' ended unexpectedly" in str(caught.value)
    assert f"Redis refuses to {cause}" in str(caught.value)


async def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(redis_server, client, monkeypatch):
    """A replica refuses every write for as long as it is one."""
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    settings = load_settings()
    topology = load_topology(topology_path(settings), schemas_path())
    stop = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(run_roles(["judge"], settings, topology, concurrency=None, stop=stop))
        await client.xadd(STREAM, fields(step(1)))
        await until(lambda: client.xlen(KEYS.done))
        await client.replicaof("127.0.0.1", "1")
        errors = _errors("schedule", "promote")

        async def refused():
            return _errors("schedule", "promote") >= errors + 2

        await until(refused)
        await client.replicaof("NO", "ONE")
        await client.xadd(STREAM, fields(step(2)))

        async def both_done():
            return await client.xlen(KEYS.done) == 2

        await until(both_done)
        stop.set()
        await running


async def test_an_entry_whose_return_is_refused_holds_up_no_other(redis_server, client):
    async def work(_step):
        return {}

    abandoned = _messages(Outcome.ABANDONED)
    member = Member(redis_server.url, client, judge(), work)
    await client.xgroup_create(STREAM, "judge", "0", mkstream=True)
    for number in (1, 2, 3):
        await client.xadd(STREAM, fields(step(number)))
    ((_, entries),) = await client.xreadgroup("judge", "a", {STREAM: ">"}, count=3)
    releaser = member.consumer._releaser
    deliveries = (1, BEYOND_EVERY_NUMBER, 1)
    releaser.add_entries(
        [Entry(STREAM, entry.decode(), number, {}) for (entry, _), number in zip(entries, deliveries, strict=True)]
    )
    releaser.start()
    async with asyncio.timeout(60):
        await releaser._empty.wait()
    await releaser.stop(0)
    held = await client.xpending_range(STREAM, "judge", "-", "+", 9)
    assert [one["consumer"] for one in held] == [b"released", b"a", b"released"]
    assert _messages(Outcome.ABANDONED) == abandoned + 1


async def test_a_lease_whose_renewal_is_refused_holds_up_no_other(redis_server, client):
    await client.xgroup_create(STREAM, "judge", "0", mkstream=True)
    for number in (1, 2, 3):
        await client.xadd(STREAM, fields(step(number)))
    ((_, entries),) = await client.xreadgroup("judge", "a", {STREAM: ">"}, count=3)
    await age(client, STREAM, 50_000)
    leases = LeaseRenewer(redis_server.url, "judge", "a", 0.1)
    lost: list[LeaseStatus] = []
    for (entry, _), delivery in zip(entries, (1, BEYOND_EVERY_NUMBER, 1), strict=True):
        lease = Lease(STREAM, entry.decode(), delivery)
        leases.add((STREAM, lease.entry, delivery), lease, time.monotonic() + 60, lambda _, status: lost.append(status))
    leases.start(Supervisor())

    async def others_are_renewed():
        held = await client.xpending_range(STREAM, "judge", "-", "+", 9)
        return [one["time_since_delivered"] < 40_000 for one in held] == [True, False, True]

    try:
        await until(others_are_renewed)
    finally:
        await asyncio.to_thread(leases.stop)
    assert lost == []


def _errors(topic, operation):
    labels = {"topic": topic, "doing": operation}
    return REGISTRY.get_sample_value("octollm_redis_errors_total", labels) or 0


def _messages(outcome):
    return REGISTRY.get_sample_value("octollm_messages_total", {"topic": "arm.judge", "outcome": outcome}) or 0
