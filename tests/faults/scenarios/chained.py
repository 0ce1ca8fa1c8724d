"""Faults between an arm that has sent the next step by itself and the orchestrator that is to hear of it."""

import json
from typing import Any

from tests.faults.instance import Instance
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.helpers import first_calls, send

_DONE = "{l0}:steps.done"


@scenario("end_lost")
async def end_lost(ring: Ring) -> Landed:
    """The ends of steps are gone from their stream while no orchestrator runs.

    With direct hand-off the next steps have run and reported by then, from outputs that will never be committed.
    """
    stage = ring.stage
    orders = [ring.load.order({"sleep_ms": 1500}, source="http0", kind="line") for _ in range(3)]
    send(ring, orders)
    numbers = {json.loads(order.body)["input"]["n"] for order in orders}

    def begun() -> set[str]:
        return {one["task"] for one in first_calls(ring, numbers)}

    orchestrators = stage.of("orchestrator")
    starts = {one.name: one.starts for one in orchestrators}
    try:
        await stage.until(lambda: len(begun()) == len(orders), "the first steps", TIMEOUT_S)
        tasks = begun()
        await _stop(ring, orchestrators)
        last = "three" if stage.direct else "one"
        await stage.until(lambda: _reported(ring, tasks, last), f"the ends of the steps {last}", TIMEOUT_S)
        gone = await _delete(ring, tasks)
    finally:
        for one in orchestrators:
            one.wanted = True
    for one in orchestrators:
        await stage.again(one, starts[one.name])
    if not gone:
        raise MissedError("no end was there to be lost")
    after = "after what follows them was done" if stage.direct else "before anybody had read them"
    return Landed(f"the ends of {gone} steps were lost {after}", count=gone, loss="redis")


async def _stop(ring: Ring, processes: list[Instance]) -> None:
    """Killed, and not started again."""
    for one in processes:
        one.wanted = False
        one.kill()

    def ended() -> bool:
        return all(one.child is None or one.child.exit_code is not None for one in processes)

    await ring.stage.until(ended, "the ends of the orchestrators", TIMEOUT_S)


async def _ends(ring: Ring) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the stream of ends: each entry's id and body."""
    async with ring.stage.client() as client:
        entries: Any = await client.xrange(_DONE)
        return [(entry, json.loads(fields[b"body"])) for entry, fields in entries]


async def _reported(ring: Ring, tasks: set[str], step: str) -> bool:
    return tasks <= {body.get("task") for _, body in await _ends(ring) if body.get("step") == step}


async def _delete(ring: Ring, tasks: set[str]) -> int:
    lost = [entry for entry, body in await _ends(ring) if body.get("task") in tasks and body.get("step") == "one"]
    async with ring.stage.client() as client:
        return int(await client.xdel(_DONE, *lost)) if lost else 0
