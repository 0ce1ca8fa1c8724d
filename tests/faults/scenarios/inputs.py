"""Inputs that break or block what works on them: they end alone, and other tasks go on."""

import asyncio

from octollm.errors import StartError
from tests.faults.load import Order
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario

_COUNT = 12
"""More than the failures that open a circuit breaker."""
_OTHERS = 5
_TRIES = 2
"""Of content that does not end."""
_MOST_ATTEMPTS = """
SELECT max(attempt) FROM attempts JOIN tasks ON tasks.id = attempts.task WHERE idempotency_key = ANY ($1::text[])
"""
_LONGEST_S = 60.0
"""Within this time tasks that are sent after the bad ones have to end, on a busy machine as well."""


@scenario("poison_burst")
async def poison_burst(ring: Ring) -> Landed:
    """Many inputs at once that break an arm, and many that break the rendering of their plan."""
    bad = [ring.load.order({"raise": "odd data"}, kind="ledger", expected="failed") for _ in range(_COUNT)]
    bad += [
        ring.load.order({"x": ring.rng.choice(("inf", "nan", "1e400"))}, kind="odd", expected="plan_invalid")
        for _ in range(_COUNT)
    ]
    return await _others_go_on(ring, bad, "inputs that broke an arm or their plan")


@scenario("blocking_input")
async def blocking_input(ring: Ring) -> Landed:
    """Inputs whose check would take years: each is tried twice, and killed at the step's time limit."""
    bad = [ring.load.order(kind="slow_check", expected="failed") for _ in range(3)]
    landed = await _others_go_on(ring, bad, "inputs that blocked the judge")
    most = await ring.stage.value(_MOST_ATTEMPTS, [order.key for order in bad])
    if most is not None and most > _TRIES:
        landed.broken += (f"an input that never ends was tried {most} times",)
    return landed


async def _others_go_on(ring: Ring, bad: list[Order], what: str) -> Landed:
    for order in bad:
        ring.load.send(order)
    began = asyncio.get_running_loop().time()
    others = [ring.load.order({}, kind="ledger") for _ in range(_OTHERS)]
    for order in others:
        ring.load.send(order)
    await _until_ended(ring, others, "the end of the other tasks")
    took_s = asyncio.get_running_loop().time() - began
    await _until_ended(ring, bad, f"the end of {what}")
    broken = (f"tasks waited {took_s:.0f} s for {what}",) if took_s > _LONGEST_S else ()
    return Landed(f"{len(bad)} {what}; others took {took_s:.1f} s", count=len(bad), broken=broken)


async def _until_ended(ring: Ring, orders: list[Order], what: str) -> None:
    async def ended() -> bool:
        found = await ring.stage.value(
            "SELECT count(*) FROM tasks WHERE idempotency_key = ANY ($1::text[]) AND result IS NOT NULL",
            [order.key for order in orders],
        )
        return bool(found is not None and found >= len(orders))

    try:
        await ring.stage.until(ended, what, TIMEOUT_S)
    except StartError as error:
        raise MissedError(str(error)) from error
