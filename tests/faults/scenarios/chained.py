"""Faults between an arm that has sent the next step by itself and the orchestrator that is to hear of it."""

import json
from typing import Any

from octollm.errors import StartError
from tests.faults.instance import Instance
from tests.faults.ledger import lines
from tests.faults.scenarios import PATIENCE_S, Landed, MissedError, Ring, scenario

_DONE = "{l0}:steps.done"


@scenario("end_lost")
async def end_lost(ring: Ring) -> Landed:
    """The ends of steps are gone from their stream while no orchestrator runs.

    With direct hand-off what follows has been done and told by then, from outputs that nobody will ever commit.
    """
    stage = ring.stage
    orders = [ring.load.order({"sleep_ms": 1500}, door="http0", kind="line") for _ in range(3)]
    for order in orders:
        ring.load.send(order)
    numbers = {json.loads(order.body)["input"]["n"] for order in orders}

    def begun() -> set[str]:
        return {one["task"] for one in lines(stage.effects) if one["step"] == "one" and one["n"] in numbers}

    orchestrators = stage.of("orchestrator")
    starts = {one.name: one.starts for one in orchestrators}
    try:
        await stage.until(lambda: len(begun()) == len(orders), "the first steps", PATIENCE_S)
        tasks = begun()
        await _away(ring, orchestrators)
        last = "three" if stage.direct else "one"
        await stage.until(lambda: _told(ring, tasks, last), f"the ends of the steps {last}", PATIENCE_S)
        gone = await _delete(ring, tasks)
    except StartError as error:
        raise MissedError(str(error)) from error
    finally:
        for one in orchestrators:
            one.wanted = True
    for one in orchestrators:
        await stage.again(one, starts[one.name])
    if not gone:
        raise MissedError("no end was there to be lost")
    after = "after what follows them was done" if stage.direct else "before anybody had read them"
    return Landed(f"the ends of {gone} steps were lost {after}", count=gone, loss="redis")


async def _away(ring: Ring, processes: list[Instance]) -> None:
    """Killed, and not started again."""
    for one in processes:
        one.wanted = False
        one.kill()

    def ended() -> bool:
        return all(one.child is None or one.child.exit_code is not None for one in processes)

    await ring.stage.until(ended, "the ends of the orchestrators", PATIENCE_S)


async def _ends(ring: Ring) -> list[tuple[bytes, dict[str, Any]]]:
    """What lies on the stream of ends: entry, and what it says."""
    async with ring.stage.client() as client:
        entries: Any = await client.xrange(_DONE)
        return [(entry, json.loads(fields[b"body"])) for entry, fields in entries]


async def _told(ring: Ring, tasks: set[str], step: str) -> bool:
    return tasks <= {body.get("task") for _, body in await _ends(ring) if body.get("step") == step}


async def _delete(ring: Ring, tasks: set[str]) -> int:
    lost = [entry for entry, body in await _ends(ring) if body.get("task") in tasks and body.get("step") == "one"]
    async with ring.stage.client() as client:
        return int(await client.xdel(_DONE, *lost)) if lost else 0
