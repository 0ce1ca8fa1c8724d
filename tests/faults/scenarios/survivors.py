"""What a crash and a deploy cost those who go on: throughput after a crash, deliveries in deploys."""

import asyncio
import json
import signal
from functools import partial
from typing import Any

from tests.faults.instance import Instance
from tests.faults.ledger import now
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.helpers import first_calls, redeployed, send, until_ended

_SLOTS = 6
"""Of each arm while a crash is measured: they are what bounds the throughput, and not the processor."""
_STEP_S = 2.0
_WINDOW_S = 4 * _STEP_S
"""How long throughput is counted, before and after: more than a lease, and a whole number of steps."""
_EDGE_S = 0.5
"""The slots begin their steps at about the same time, so all of them together can miss the end of the window. They are
counted for so much longer: each step takes a little more than `_STEP_S`, and more on a busy machine.
"""
_AHEAD = 6 * _SLOTS
"""How many steps wait or run at any time while a crash is measured."""
_LONG_STEP_S = 10.0
_DRAIN_S = 1
_DEPLOYS = 6
"""More than a step has deliveries."""


@scenario("crash_cost")
async def crash_cost(ring: Ring) -> Landed:
    """Kill -9 an arm with full slots: the other one must go on as before, also when it reclaims what the first held."""
    survivor, victim = ring.stage.of("effect")
    few = ring.stage.folder / "few-slots.yaml"
    text = (ring.stage.folder / "streams.yaml").read_text()
    few.write_text(text.replace("    concurrency: 32\n", f"    concurrency: {_SLOTS}\n"))
    full = _SLOTS * _WINDOW_S / _STEP_S
    async with redeployed(ring, [(one, {"OCTOLLM_TOPOLOGY_FILE": str(few)}) for one in (survivor, victim)]):
        numbers: set[int] = set()

        def begun(one: Instance | None = None) -> list[float]:
            found = [line for line in first_calls(ring, numbers) if "mark" in line]
            return [line["at"] for line in found if one is None or one.ran(line["worker"])]

        async def feed() -> None:
            """Always more work than slots, on however busy a machine."""
            while True:
                for _ in range(_AHEAD + len(begun()) - len(numbers)):
                    order = ring.load.order({"sleep_ms": int(_STEP_S * 1000)}, kind="nap", source="http0")
                    numbers.add(json.loads(order.body)["input"]["n"])
                    ring.load.send(order)
                await asyncio.sleep(0.2)

        def busy() -> bool:
            return sum(at > now() - _WINDOW_S for at in begun(survivor)) > 0.9 * full

        feeding = asyncio.create_task(feed())
        try:
            await ring.stage.until(busy, "full slots", TIMEOUT_S)
            # Its start would take the processor away from the survivor: it comes back when all has been counted.
            victim.wanted = False
            victim.kill()
            killed = now()
            await asyncio.sleep(_WINDOW_S + _EDGE_S)
            before = [at for at in begun(survivor) if killed - _WINDOW_S <= at < killed]
            after = [at for at in begun(survivor) if killed <= at < killed + _WINDOW_S + _EDGE_S]
        finally:
            feeding.cancel()
        victim.wanted = True
    # More than the slots can do in the long run is the end of a burst.
    rates = min(len(before), full) / _WINDOW_S, min(len(after), full) / _WINDOW_S
    detail = f"killed {victim.name}; {survivor.name} began {rates[0]:.1f} steps/s before, {rates[1]:.1f} after"
    return Landed(detail, throughput=rates)


@scenario("deploys_during_long_steps")
async def deploys_during_long_steps(ring: Ring) -> Landed:
    """SIGTERM to the arms in turn, more often than a step has deliveries, while steps run that outlast every drain."""
    arms = ring.stage.of("effect")
    async with redeployed(ring, [(one, {"OCTOLLM_WORKER_DRAIN_S": str(_DRAIN_S)}) for one in arms]):
        orders = [ring.load.order({"sleep_ms": int(_LONG_STEP_S * 1000)}, kind="nap") for _ in range(3)]
        numbers = {json.loads(order.body)["input"]["n"] for order in orders}
        send(ring, orders)

        def said(key: str) -> list[dict[str, Any]]:
            return [line for line in first_calls(ring, numbers) if key in line]

        def running_on(since: float) -> list[Instance]:
            begun = [line["worker"] for line in said("mark") if line["at"] > since]
            return [one for one in arms if any(map(one.ran, begun))]

        since = 0.0
        for _ in range(_DEPLOYS):
            await ring.stage.until(partial(running_on, since), "a long step", TIMEOUT_S)
            one, since = running_on(since)[0], now()
            one.kill(signal.SIGTERM)
        tasks = sorted({line["task"] for line in said("mark")})
        await until_ended(ring, orders, "the end of the long steps")
        stopped = len(said("stopped"))
    if stopped < _DEPLOYS:
        raise MissedError(f"{_DEPLOYS} deploys stopped long steps only {stopped} times")
    charged = await ring.stage.value(
        "SELECT count(*) FROM attempts WHERE task = ANY($1::text[]) AND (delivery > 1 OR attempt > 1)", tasks
    )
    broken = (f"{charged} attempts of long steps were charged for deploys",) if charged else ()
    return Landed(f"{_DEPLOYS} deploys stopped long steps {stopped} times", count=_DEPLOYS, broken=broken)
