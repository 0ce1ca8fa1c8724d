"""Redis that hangs under HTTP load, and clients that leave early: every answer says what happened."""

import asyncio
import signal
from urllib.parse import urlsplit

import httpx

from tests.faults.ledger import now
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario

_HUNG_S = 3.0
_RATE = 40
"""Submissions a second while Redis hangs."""
_MAX_ANSWER_S = 2.0
"""A reflex needs one second; the rest is for a machine that is busy with other things."""
_LEAVING = 20


@scenario("redis_hung")
async def redis_hung(ring: Ring) -> Landed:
    """Redis stands still while clients without an idempotency key submit once: what is stored was named to them."""
    redis, load = ring.stage.redis, ring.load
    if redis is None:
        raise MissedError("Redis does not run")
    before, slowest = load.unconfirmed, 0.0

    async def submit() -> None:
        nonlocal slowest
        began = now()
        await load.submit_once()
        slowest = max(slowest, now() - began)

    async with asyncio.TaskGroup() as group:
        redis.send(signal.SIGSTOP)
        try:
            unready = group.create_task(_unready(ring))
            until = now() + _HUNG_S
            while now() < until:
                group.create_task(submit())
                await asyncio.sleep(1 / _RATE)
            was_unready = unready.done()
            unready.cancel()
        finally:
            redis.send(signal.SIGCONT)
    await ring.stage.until(ring.stage.all_ready, "every process ready again", TIMEOUT_S)
    named, broken = load.unconfirmed - before, []
    if slowest > _MAX_ANSWER_S:
        broken.append(f"a submission was answered after {slowest:.1f} s while Redis stood still")
    if not was_unready:
        broken.append(f"a reflex was still ready {_HUNG_S} s after Redis stood still")
    if not (named or broken):
        raise MissedError("no submission was on its way when Redis stood still")
    detail = f"{named} answers named a task as unconfirmed, the slowest took {slowest:.2f} s"
    return Landed(detail, broken=tuple(broken))


async def _unready(ring: Ring) -> None:
    """Until every reflex says that it is not ready."""
    async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
        for one in ring.stage.of("reflex"):
            while await one.ready(client):
                await asyncio.sleep(0.05)


@scenario("clients_leave")
async def clients_leave(ring: Ring) -> Landed:
    """Clients close their connection right after the last byte; a repeat with the same key finds the one task."""
    for number in range(_LEAVING):
        order = ring.load.order({}, source=f"http{number % 2}")
        address = urlsplit(ring.stage.of("reflex")[number % 2].http)
        ring.load.invoke(order)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        head = (
            f"POST /v1/tasks HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
            f"idempotency-key: {order.key}\r\ncontent-length: {len(order.body)}\r\n\r\n"
        )
        writer.write(head.encode() + order.body)
        await writer.drain()
        writer.close()
        ring.load.send(order)
    return Landed(f"{_LEAVING} clients left before they were answered", count=_LEAVING)
