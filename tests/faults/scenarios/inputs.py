"""Inputs that break or block what works on them: they end alone, and other tasks go on."""

import asyncio
import re

import httpx

from tests.faults.load import Order
from tests.faults.scenarios import Landed, Ring, scenario
from tests.faults.scenarios.helpers import send, until_ended

_COUNT = 12
"""More than the failures that open a circuit breaker."""
_OPENED = re.compile(r"^octollm_circuit_opened_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
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
    """Many inputs at once that break an arm, and many that break the rendering of their plan: no breaker opens.

    They come from several tenants and break several steps, as it takes for a breaker to open.
    """
    opened = await _breakers_opened(ring)
    sources = ("http0",) if ring.stage.durability == "stored" else ("http0", "stream")
    bad = [
        ring.load.order({"raise": "odd data"}, kind="pair", source=source, expected="failed")
        for source in sources
        for _ in range(2 * _COUNT // len(sources))
    ]
    bad += [
        ring.load.order({"x": ring.rng.choice(("inf", "nan", "1e400"))}, kind="odd", expected="plan_invalid")
        for _ in range(_COUNT)
    ]
    ring.rng.shuffle(bad)
    landed = await _others_go_on(ring, bad, "inputs that broke an arm or their plan")
    if (more := await _breakers_opened(ring) - opened) > 0:
        landed.broken += (f"inputs opened a circuit breaker {more:.0f} times",)
    return landed


async def _breakers_opened(ring: Ring) -> float:
    """How often the circuit breakers of the arms and the orchestrators have opened since these were started."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        pages = [
            (await client.get(f"{one.http}/metrics")).text
            for role in ("effect", "judge", "orchestrator")
            for one in ring.stage.of(role)
        ]
    return sum(float(count) for page in pages for count in _OPENED.findall(page))


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
    send(ring, bad)
    began = asyncio.get_running_loop().time()
    others = [ring.load.order({}, kind="ledger") for _ in range(_OTHERS)]
    send(ring, others)
    await until_ended(ring, others, "the end of the other tasks")
    took_s = asyncio.get_running_loop().time() - began
    await until_ended(ring, bad, f"the end of {what}")
    broken = (f"tasks waited {took_s:.0f} s for {what}",) if took_s > _LONGEST_S else ()
    return Landed(f"{len(bad)} {what}; others took {took_s:.1f} s", count=len(bad), broken=broken)
