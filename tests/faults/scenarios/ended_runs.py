"""Runs that end while their steps run or wait, and a clock that is ahead: work ends exactly with its run."""

import asyncio
import signal
from collections.abc import Sequence
from time import monotonic

import httpx

from octollm.errors import StartError
from tests.faults.load import Order
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.network import faketime

_LONG_MS = 40_000
_PARALLEL_MS = 12_000
"""Of the steps next to a failing one: if they are not stopped, they end before the campaign gives up waiting."""
_FRESH_S = 10.0
"""Longest time for a task that is submitted when all slots should be free again."""


@scenario("ended_runs")
async def ended_runs(ring: Ring) -> Landed:
    """More tasks expire than there are slots, some fail next to a running step, and some of both run again."""
    load = ring.load
    long, parallel = {"sleep_ms": _LONG_MS}, {"sleep_ms": _PARALLEL_MS}
    orders = [load.order(long, source="http0", kind="line", expected="expired", deadline_s=4) for _ in range(80)]
    orders += [load.order(parallel, source="http0", kind="split", expected="judged") for _ in range(6)]
    for order in orders:
        load.send(order)
    ended = await _until_ended(ring, orders, 1)
    broken = []
    began = monotonic()
    fresh = load.order({}, source="http0", kind="ledger")
    load.send(fresh)
    await _until_ended(ring, [fresh], 1)
    if (took := monotonic() - began) > _FRESH_S:
        broken.append(f"a task took {took:.0f} s, because the work of ended tasks held the slots")
    again = [ended[order.key] for order in (*orders[:3], *orders[-3:])]
    url = ring.stage.of("reflex")[1].http
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        for task in again:
            answer = await client.post(f"{url}/v1/tasks/{task}/runs")
            if answer.status_code != 202:
                raise MissedError(f"the reflex answered {answer.status_code}: {answer.text}")
    await _until_ended(ring, [*orders[:3], *orders[-3:]], 2)
    return Landed(f"{len(orders)} runs ended over their steps, {len(again)} ran again", count=2, broken=tuple(broken))


async def _until_ended(ring: Ring, orders: Sequence[Order], run: int) -> dict[str, str]:
    """Wait until this run of every order's task has ended; return the tasks by their orders' keys."""
    found: dict[str, str] = {}

    async def all_ended() -> bool:
        async with ring.stage.database() as connection:
            rows = await connection.fetch(
                "SELECT id, idempotency_key FROM tasks WHERE idempotency_key = ANY ($1::text[]) AND run >= $2"
                " AND finished_at IS NOT NULL",
                [order.key for order in orders],
                run,
            )
        found.update({row["idempotency_key"]: row["id"] for row in rows})
        return len(found) == len(orders)

    try:
        await ring.stage.until(all_ended, f"the end of {len(orders)} tasks", TIMEOUT_S)
    except StartError as error:
        raise MissedError(str(error)) from error
    return found


@scenario("clock_ahead")
async def clock_ahead(ring: Ring) -> Landed:
    """An orchestrator and an arm whose clocks are an hour ahead: tasks with half an hour to go do not expire."""
    changed = [ring.stage.of(role)[0] for role in ("orchestrator", "effect")]
    for one in changed:
        one.environment = {"LD_PRELOAD": faketime(), "FAKETIME": "+1h", "DONT_FAKE_MONOTONIC": "1"}
    try:
        for one in changed:
            starts = one.starts
            one.kill(signal.SIGTERM)
            await ring.stage.again(one, starts)
        for _ in range(12):
            ring.load.send(ring.load.order({"sleep_ms": 500}, source="http0", kind="ledger", deadline_s=1800))
        await asyncio.sleep(4)
    finally:
        for one in changed:
            one.environment = {}
            starts = one.starts
            one.kill(signal.SIGTERM)
            await ring.stage.again(one, starts)
    return Landed("an orchestrator and an arm an hour ahead")
