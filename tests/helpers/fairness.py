"""Steps of several tenants for one arm with a window or a cap, sent and worked on straight through the scripts."""

from dataclasses import replace

from octollm.contracts.ids import in_flight_field
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Completion, Handoff, LeaseStatus
from octollm.protocol.operations import Lease, Publish, StepRun
from tests.helpers.consumers import KEYS, fields, judge, step, topology

JUDGE, SHIPPED = judge(), topology()
STREAM = KEYS.stream(JUDGE)
WAITING, TURNS, HELD = KEYS.waiting(STREAM), KEYS.ring(STREAM), KEYS.running(JUDGE)


def limited(window=8, cap=None):
    """The topology that ships with another window and cap for the judge."""
    found = SHIPPED
    changed = replace(found.topics["arm.judge"], window=window, max_running_per_tenant=cap)
    return replace(found, topics={**found.topics, "arm.judge": changed})


def made(client, wiring, consumer="a"):
    return Handoff(client, "l0", "judge", consumer, Fairness(wiring, "l0"))


def message(number, tenant="ann", priority="normal"):
    one = step(number, tenant=tenant, priority=priority)
    live = in_flight_field(one.task, one.run, one.step, one.round)
    return Publish(KEYS.stream(JUDGE, priority), {**fields(one), "tenant": tenant}, live)


async def send(handoff, numbers, tenant="ann", priority="normal"):
    operations = [message(number, tenant, priority) for number in numbers]
    for first in range(0, len(operations), 500):
        await handoff.publish(operations[first : first + 500])


async def read(client, consumer="a", count=1, stream=STREAM):
    """Entries as `consumer` holds them, with their tenants and the numbers of their tasks."""
    if not await client.exists(stream) or not await client.xinfo_groups(stream):
        await client.xgroup_create(stream, "judge", "0", mkstream=True)
    found = []
    for name, entries in await client.xreadgroup("judge", consumer, {stream: ">"}, count=count) or ():
        for entry, got in entries:
            tenant, task = got[b"tenant"].decode(), got[b"id"].decode().partition(".")[0]
            live = got[b"id"].decode().rpartition(".")[0]
            run = StepRun(KEYS.ended_runs, live.rsplit(".", 2)[0], tenant)
            held = Lease(name.decode(), entry.decode(), 1, live, run)
            found.append((held, tenant, int(task[-5:])))
    return found


async def work(client, handoff, count=1, rounds=100_000):
    """Reads and finishes `count` at a time until nothing is left; tenant and number in the order of reading."""
    order = []
    for _ in range(rounds):
        got = await read(client, count=count)
        if not got:
            break
        assert await handoff.complete([Completion(held, ()) for held, _, _ in got]) == [LeaseStatus.DONE] * len(got)
        order += [(tenant, number) for _, tenant, number in got]
    return order


async def left(client):
    """What any of the structures still holds."""
    return [await client.exists(key) for key in (WAITING, TURNS, HELD)] + [await client.hlen(KEYS.in_flight)]


async def enough(ended, count):
    return sum(map(len, ended.values())) >= count


async def drained(client):
    return await client.xlen(STREAM) == 0 and not await client.exists(WAITING)
