"""Messages that kill, come twice, come late, come by the thousand, or come from another version."""

import asyncio
import json
from typing import Any

import asyncpg

from tests.faults.scenarios import TIMEOUT_S, Landed, Ring, scenario
from tests.faults.scenarios.helpers import cancel_all, end_within, send

_ENDED = """
SELECT tasks.tenant, attempts.* FROM attempts JOIN tasks ON tasks.id = attempts.task
WHERE outcome = 'succeeded' AND tasks.result IS NOT NULL ORDER BY random() LIMIT 1
"""
_MALFORMED = "SELECT body->>'entry' AS entry FROM dead_letters WHERE reason = 'malformed'"


@scenario("poison")
async def poison(ring: Ring) -> Landed:
    """A step that kills every worker that takes it is given up on, and its neighbours are not charged for it."""
    order = ring.load.order({"crash": "always"}, source="http0", expected="dead")
    ring.load.send(order)
    for _ in range(6):
        ring.load.send(ring.load.order({"sleep_ms": 300}))

    async def given_up() -> bool:
        async with ring.stage.database() as connection:
            return bool(
                await connection.fetchval(
                    "SELECT 1 FROM tasks WHERE idempotency_key = $1 AND state = 'failed'", order.key
                )
            )

    await ring.stage.until(given_up, "the end of the poison", TIMEOUT_S)
    return Landed("a step killed every worker that took it", count=5)


@scenario("broken_records")
async def broken_records(ring: Ring) -> Landed:
    """Another writer breaks the retry schedule and a tenants' queue: each becomes a dead letter, work goes on."""
    texts: dict[Any, Any] = {
        "no-json": b"x",
        "no-object": b"7",
        "no-fields": b'{"stream": "{l0}:arm.effect:normal", "in_flight": ""}',
    }
    async with ring.stage.client() as client:
        await client.hset("{l0}:schedule:messages", mapping=texts)
        await client.zadd("{l0}:schedule", dict.fromkeys(texts, 0))
        await client.hset("{l0}:arm.effect:low:waiting", "nobody", "x")
    orders = [ring.load.order({}) for _ in range(6)]
    send(ring, orders)
    in_time = await end_within(ring, orders)
    expected = {*texts, "nobody"}

    async def recorded() -> bool:
        return {row["entry"] for row in await ring.stage.rows(_MALFORMED)} >= expected

    await ring.stage.until(recorded, "the dead letters of broken records", TIMEOUT_S)
    broken = () if in_time else ("tasks did not end after records in Redis were broken",)
    return Landed("four records in Redis were broken", count=len(expected), broken=broken)


@scenario("two_ingresses")
async def two_ingresses(ring: Ring) -> Landed:
    """The same submission over both, at once, ten times."""
    for _ in range(10):
        ring.load.send(ring.load.order({}, source="both"))
    await asyncio.sleep(1)
    return Landed("ten submissions went over both ingresses", count=10)


@scenario("late_result")
async def late_result(ring: Ring) -> Landed:
    """The result of an attempt that was replaced, and one that was applied long ago, are put on the stream again."""
    ring.load.send(ring.load.order({}))
    found: list[asyncpg.Record] = []

    async def ended() -> bool:
        async with ring.stage.database() as connection:
            found[:] = await connection.fetch(_ENDED)
        return bool(found)

    await ring.stage.until(ended, "the end of an attempt", TIMEOUT_S)
    row = found[0]
    ident = f"{row['task']}.{row['run']}.{row['step']}.{row['round']}.{row['attempt']}"
    body = {
        "outcome": "succeeded", "task": row["task"], "run": row["run"], "step": row["step"], "round": row["round"],
        "attempt": row["attempt"], "tenant": row["tenant"], "arm": "effect", "worker": "zombie", "delivery": 1,
        "finished_at": "2026-01-31T12:00:00.000Z", "duration_ms": 1,
        "output": {"at": "inline", "value": {"value": -1000}},
    }  # fmt: skip
    fields = {"type": "step.done.v1", "id": ident, "tenant": row["tenant"], "traceparent": "", "body": json.dumps(body)}
    async with ring.stage.client() as client:
        for _ in range(3):
            await client.xadd("{l0}:steps.done", fields)  # type: ignore[arg-type]
    return Landed(f"a late result of {ident} came three times", count=3)


@scenario("overload")
async def overload(ring: Ring) -> Landed:
    """Ten times the capacity: above the high-water mark producers are asked to come back, and all is finished."""
    before = ring.load.retry_after
    ways = ring.stage.proxies("redis", ["orchestrator"])
    for way in ways:
        way.hold()
    for _ in range(400):
        ring.load.send(ring.load.order({}, source=ring.rng.choice(("http0", "http1"))))
    try:
        await ring.stage.until(lambda: ring.load.retry_after > before, "a 503", TIMEOUT_S)
    finally:
        for way in ways:
            way.release()
    return Landed(f"400 submissions at once, {ring.load.retry_after - before} were asked to come back later")


@scenario("other_versions")
async def other_versions(ring: Ring) -> Landed:
    """Messages of an unknown version become dead letters, and those of ours between them are finished."""
    ident = "l0-01jd0000000000000000000000"
    sent = 0
    async with ring.stage.client() as client:
        for stream, kind in (
            ("{l0}:tasks:normal", "task.submitted.v2"),
            ("{l0}:steps.done", "step.done.v9"),
            ("{l0}:arm.effect:normal", "step.requested.v2"),
        ):
            await client.xadd(
                stream, {"type": kind, "id": ident, "tenant": "default", "traceparent": "", "body": '{"new": 1}'}
            )
            sent += 1
        for tenant in ("default", "other"):
            await client.xadd(f"ingest:{tenant}", {"type": "task.submission.v2", "body": '{"goal": "g"}'})
            sent += 1

    async def became_dead() -> bool:
        async with ring.stage.database() as connection:
            found = await connection.fetchval(
                "SELECT count(*) FROM dead_letters WHERE body->>'type' ~ 'v[29]$' OR body->>'type' = ''"
            )
            return bool(found >= sent)

    for _ in range(4):
        ring.load.send(ring.load.order({}))
    await ring.stage.until(became_dead, "the dead letters", TIMEOUT_S)
    return Landed(f"{sent} messages of other versions became dead letters", count=sent, made=(ident,))


@scenario("slow_steps")
async def slow_steps(ring: Ring) -> Landed:
    """Steps that run for much longer than any lease, two of them in the sandbox: nobody else may get them."""
    for kind in (*("ledger", "line") * 3, "sandbox", "sandbox"):
        ring.load.send(ring.load.order({"sleep_ms": 12_000}, kind=kind))
    await asyncio.sleep(12)
    return Landed("eight steps ran for four leases", count=8)


@scenario("cancel")
async def cancel(ring: Ring) -> Landed:
    """Tasks are taken back while their steps run: each ends as cancelled, and none of its other steps begins."""
    orders = [ring.load.order({"sleep_ms": 50_000}, source="http0", expected="cancelled") for _ in range(4)]
    send(ring, orders)
    await cancel_all(ring, orders)
    return Landed("four tasks were taken back while they ran", count=4)
