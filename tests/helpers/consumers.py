"""Steps for an arm, and consumers that work on them."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import redis.asyncio
from faststream.redis import RedisBroker

from octollm.consumer.circuit_breaker import NEVER_OPENS
from octollm.consumer.consumer import Consumer
from octollm.consumer.leases import LeaseRenewer
from octollm.contracts import StepRequested, write
from octollm.contracts.ids import message_id
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import ClaimLimits
from octollm.resources import schemas_path, share_dir
from octollm.steps.runner import StepRunner
from octollm.supervision import Supervisor
from octollm.topology import LaneKeys, load_topology
from tests.helpers.waiting import POLL_S

KEYS = LaneKeys("l0")
CLAIM_ALL = ClaimLimits(most=10, started=10, suspects=10, last=True)


def topology():
    return load_topology(share_dir() / "streams.yaml", schemas_path())


def judge(**changes):
    return replace(topology().topics["arm.judge"], **{"heartbeat_s": 1, "lease_s": 3, **changes})


def step(number=1, **changes):
    return StepRequested(
        **{
            "task": f"l0-01jd00000000000000000{number:05d}",
            "run": 1,
            "step": "check",
            "round": 0,
            "attempt": 1,
            "tenant": "default",
            "arm": "judge",
            "priority": "normal",
            "failures": 0,
            "input": {"number": number},
            "timeout_s": 60,
            **changes,
        }
    )


def fields(one):
    ident = message_id(one.task, one.run, one.step, one.round, one.attempt)
    return {"type": "step.requested.v1", "id": ident, "tenant": one.tenant, "traceparent": "", "body": write(one)}


async def keep_nothing(_tenant, _sha256, _raw):
    raise AssertionError("nothing here is large")


class Member:
    """One consumer; `kill` stops it as SIGKILL would: nothing is released, nobody leaves."""

    def __init__(
        self,
        url,
        client,
        topic,
        work,
        name="a",
        concurrency=8,
        keep=keep_nothing,
        handler=None,
        fairness=None,
        circuit_breaker=NEVER_OPENS,
        watch=None,
        **options,
    ):
        """`handler`: a role's own, instead of one made from `work`, which may take `options`."""
        self.supervisor = Supervisor()
        self.leases = LeaseRenewer(url, topic.group, name, topic.heartbeat_s)
        handler = handler or StepRunner(topic, KEYS, name, work, keep, watch=watch, **options)
        self.consumer = Consumer(
            client,
            self.leases,
            topic,
            "l0",
            name,
            handler,
            concurrency,
            self.supervisor,
            fairness or Fairness(topology(), "l0"),
            circuit_breaker,
            watch,
        )
        self.broker = RedisBroker(url, apply_types=False, logger=None)  # type: ignore[arg-type]  # as the worker does

    async def start(self):
        self.leases.start(self.supervisor)
        await self.consumer.start(self.broker)
        await self.broker.start()

    async def stop(self, drain_s=30):
        await self.broker.stop()
        await self.consumer.stop(drain_s)
        await asyncio.to_thread(self.leases.stop)

    async def kill(self):
        await asyncio.to_thread(self.leases.stop)
        await self.broker.stop()
        await self.supervisor.stop()


@asynccontextmanager
async def consuming(*args, **options):
    member = Member(*args, **options)
    await member.start()
    try:
        yield member
    finally:
        await member.stop()


async def dead_workers(client, stream, count, numbers, idle=60000, group="judge"):
    """Entries that a worker read and died with."""
    await client.xgroup_create(stream, group, "0", mkstream=True)
    for number in numbers:
        await client.xadd(stream, fields(step(number)))
    await client.xreadgroup(group, "killed", {stream: ">"}, count=count)
    await age(client, stream, idle, group)


async def age(client, stream, idle=60000, group="judge", consumer=None):
    """Make pending entries look as if nobody had renewed their leases for `idle` ms; those of one consumer, or all."""
    for one in await client.xpending_range(stream, group, "-", "+", 1000, consumer):
        await client.xclaim(
            stream,
            group,
            one["consumer"],
            0,
            [one["message_id"]],
            idle=idle,
            retrycount=one["times_delivered"],
            justid=True,
        )


async def renewed(client: redis.asyncio.Redis, stream: str, times: int, group: str = "judge") -> None:
    """Wait until the lease of the stream's oldest pending entry has been renewed so often.

    A renewal, and also a reclaim, shows in the time for which the entry has been idle: it begins again.
    """
    count, last = 0, 0
    while count < times:
        (one,) = await client.xpending_range(stream, group, "-", "+", 1)
        idle = int(one["time_since_delivered"])
        count += idle < last
        last = idle
        await asyncio.sleep(POLL_S)


async def outcomes(client: redis.asyncio.Redis) -> list[dict[str, Any]]:
    """Return the bodies of `steps.done`, oldest first."""
    entries: Any = await client.xrange(KEYS.done)
    return [orjson.loads(entry[b"body"]) for _, entry in entries]


async def has_length(client: redis.asyncio.Redis, stream: str, length: int) -> bool:
    return int(await client.xlen(stream)) >= length
