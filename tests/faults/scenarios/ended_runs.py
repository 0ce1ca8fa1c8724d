"""Runs that end while their steps run or wait: work ends exactly with its run."""

from collections.abc import Sequence
from time import monotonic

import httpx

from octollm.errors import StartError
from tests.faults.load import Order
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario

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
