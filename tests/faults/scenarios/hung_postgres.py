"""Postgres that hangs with all its connections open: every process that needs it says so, and goes on afterwards."""

import asyncio
import signal

import httpx
import psutil

from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario

_HUNG_S = 4.0
_UNREADY_S = 3.0
"""An orchestrator needs two seconds; the rest is for a machine that is busy with other things."""


@scenario("postgres_hung")
async def postgres_hung(ring: Ring) -> Landed:
    """All of Postgres stands still under load: the orchestrators are soon not ready, and finish the tasks later."""
    postgres, broken = ring.stage.postgres, []
    if postgres is None:
        raise MissedError("Postgres does not run")
    processes = [psutil.Process(postgres.child.pid)]
    processes += processes[0].children(recursive=True)
    for _ in range(8):
        ring.load.send(ring.load.order({}))
    _signal(processes, signal.SIGSTOP)
    try:
        async with asyncio.timeout(_UNREADY_S):
            await _unready(ring)
    except TimeoutError:
        broken.append(f"an orchestrator was still ready {_UNREADY_S} s after Postgres stood still")
    finally:
        await asyncio.sleep(_HUNG_S)
        _signal(processes, signal.SIGCONT)
    await ring.stage.until(ring.stage.all_ready, "every process ready again", TIMEOUT_S)
    return Landed(f"{len(processes)} processes of Postgres stood still", broken=tuple(broken))


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        if process.is_running():
            process.send_signal(number)


async def _unready(ring: Ring) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
        for one in ring.stage.of("orchestrator"):
            while await one.ready(client):
                await asyncio.sleep(0.05)
