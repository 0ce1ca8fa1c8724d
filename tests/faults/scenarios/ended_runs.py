"""Runs that end while their steps run or wait: work ends exactly with its run."""

import asyncio
from time import monotonic

import httpx
import psutil

from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.helpers import cancel_all, send, until_ended

_LONG_MS = 40_000
_PARALLEL_MS = 12_000
"""Of the steps next to a failing one: if they are not stopped, they end before the campaign gives up waiting."""
_FRESH_S = 10.0
"""Longest time for a task that is submitted when all slots should be free again."""
_STOPPED_WITHIN_S = 3.0
"""How long a sandbox may outlive its step's run: a second, and more on a busy machine."""


@scenario("ended_runs")
async def ended_runs(ring: Ring) -> Landed:
    """More tasks expire than there are slots, some fail next to a running step, and some of both run again."""
    load = ring.load
    long, parallel = {"sleep_ms": _LONG_MS}, {"sleep_ms": _PARALLEL_MS}
    orders = [load.order(long, source="http0", kind="line", expected="expired", deadline_s=4) for _ in range(80)]
    orders += [load.order(parallel, source="http0", kind="split", expected="judged") for _ in range(6)]
    send(ring, orders)
    ended = await until_ended(ring, orders)
    broken = []
    began = monotonic()
    fresh = load.order({}, source="http0", kind="ledger")
    load.send(fresh)
    await until_ended(ring, [fresh])
    if (took := monotonic() - began) > _FRESH_S:
        broken.append(f"a task took {took:.0f} s, because the work of ended tasks held the slots")
    again = [ended[order.key] for order in (*orders[:3], *orders[-3:])]
    url = ring.stage.of("reflex")[1].http
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        for task in again:
            answer = await client.post(f"{url}/v1/tasks/{task}/runs")
            if answer.status_code != 202:
                raise MissedError(f"the reflex answered {answer.status_code}: {answer.text}")
    await until_ended(ring, [*orders[:3], *orders[-3:]], run=2)
    return Landed(f"{len(orders)} runs ended over their steps, {len(again)} ran again", count=2, broken=tuple(broken))


@scenario("ended_runs_in_sandbox")
async def ended_runs_in_sandbox(ring: Ring) -> Landed:
    """Tasks expire and are cancelled while their code runs in the sandbox: its processes end with their runs."""
    load = ring.load
    long = {"sleep_ms": _LONG_MS}
    expiring = [load.order(long, source="http0", kind="sandbox", expected="expired", deadline_s=5) for _ in range(2)]
    cancelled = [load.order(long, source="http0", kind="sandbox", expected="cancelled") for _ in range(2)]
    send(ring, [*cancelled, *expiring])
    await ring.stage.until(lambda: _sandboxes(ring) >= len(cancelled), "steps in the sandbox", TIMEOUT_S)
    await cancel_all(ring, cancelled)
    await until_ended(ring, [*cancelled, *expiring])
    broken: tuple[str, ...] = ()
    try:
        async with asyncio.timeout(_STOPPED_WITHIN_S):
            while _sandboxes(ring):
                await asyncio.sleep(0.1)
    except TimeoutError:
        broken = (f"{_sandboxes(ring)} steps ran on in the sandbox {_STOPPED_WITHIN_S:.0f} s after their runs' end",)
    return Landed("four runs ended over their steps in the sandbox", count=4, broken=broken)


def _sandboxes(ring: Ring) -> int:
    """How many processes run that belong to steps as long as those of `ended_runs_in_sandbox`."""
    found = 0
    for one in ring.stage.of("executor"):
        if one.child is None:
            continue
        try:
            started = psutil.Process(one.child.pid).children(recursive=True)
            found += sum(str(_LONG_MS) in process.cmdline() for process in started)
        except psutil.Error:
            continue
    return found
