"""Direct hand-off on and off: tasks per second, time per task and transactions per task of a chain of five steps.

Usage: python -m bench.chain [--tasks 1000] [--connections 32] [--rounds 3]. Loopback only. Each round measures both,
one after the other, so that what disturbs the machine disturbs both; the last line is one JSON object with the ratios.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from pathlib import Path

import asyncpg
import httpx
import orjson
import uvloop

from octollm.runtime.logging import configure_logging
from octollm.runtime.settings import load_settings
from octollm.runtime.up import Running, Stack

_BENCH = Path(__file__).parent
_SWITCH = "OCTOLLM_HANDOFF_DIRECT"
_ALONE = 30
"""Tasks that are pushed one by one, for the time that one takes when nothing else runs."""
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
_ALONE_MS = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - received_at) * 1000) FROM tasks
"""


async def _push(running: Running, tasks: int, connections: int) -> None:
    command = (sys.executable, "-m", "bench.push", running.http_url, str(tasks), str(connections), "chain")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait() != 0:
        raise SystemExit("the producer failed; see above")


class _Watch:
    """Looks at the database, and counts its own transactions."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.looks = 0

    async def ask(self, query: str) -> float:
        self.looks += 1
        return float(await self._connection.fetchval(query))

    async def ended(self, tasks: int) -> None:
        while await self.ask("SELECT count(*) FROM tasks WHERE result IS NOT NULL") < tasks:  # noqa: ASYNC110  a database
            await asyncio.sleep(0.05)
        if await self.ask("SELECT count(*) FROM tasks WHERE state <> 'succeeded'"):
            raise SystemExit("some tasks did not succeed; the figure would mean nothing")

    async def commits(self) -> float:
        """Transactions of the pipeline so far; a connection reports its own within a second."""
        await asyncio.sleep(2)
        return await self.ask(_COMMITS) - self.looks


async def _alone(running: Running, watch: _Watch) -> None:
    """Each task once the one before has ended."""
    async with httpx.AsyncClient(base_url=running.http_url, trust_env=False, timeout=30) as client:
        for number in range(_ALONE):
            body = {"goal": "measure", "kind": "chain", "input": {"n": number}}
            (await client.post("/v1/tasks", json=body)).raise_for_status()
            await watch.ended(number + 1)


async def _measure(tasks: int, connections: int, *, direct: bool) -> dict[str, float]:
    os.environ[_SWITCH] = str(direct).lower()
    settings = load_settings()
    configure_logging(settings.log.model_copy(update={"level": "warning"}))
    async with Stack(settings) as running:
        connection = await asyncpg.connect(running.postgres_dsn)
        try:
            watch = _Watch(connection)
            await _alone(running, watch)
            alone_ms = await watch.ask(_ALONE_MS)
            before, cpu, began = await watch.commits(), time.process_time(), time.perf_counter()
            pushing = asyncio.create_task(_push(running, tasks, connections))
            await watch.ended(_ALONE + tasks)
            seconds = time.perf_counter() - began
            cpu = time.process_time() - cpu
            await pushing
            commits = await watch.commits() - before
        finally:
            await connection.close()
    return {
        "tasks_per_s": round(tasks / seconds, 1),
        "alone_p50_ms": round(alone_ms, 1),
        "transactions_per_task": round(commits / tasks, 3),
        "python_cpu_ms_per_task": round(cpu * 1000 / tasks, 2),
    }


async def _rounds(options: argparse.Namespace) -> dict[str, object]:
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for number in range(options.rounds):
        for direct in (False, True) if number % 2 == 0 else (True, False):
            one = await _measure(options.tasks, options.connections, direct=direct)
            print("on " if direct else "off", orjson.dumps(one).decode(), file=sys.stderr)
            found[direct].append(one)
    middle = {
        name: {direct: statistics.median(one[name] for one in found[direct]) for direct in (False, True)}
        for name in found[True][0]
    }
    return {
        "tasks": options.tasks,
        "steps_per_task": 5,
        "rounds": options.rounds,
        **{name: {"off": one[False], "on": one[True]} for name, one in middle.items()},
        "speed_ratio": round(middle["tasks_per_s"][True] / middle["tasks_per_s"][False], 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["OCTOLLM_TOPOLOGY_FILE"] = str(_BENCH / "streams.yaml")
    os.environ["OCTOLLM_ORCHESTRATOR_RECIPES_DIR"] = str(_BENCH / "recipes")
    print(orjson.dumps(uvloop.run(_rounds(options))).decode())


if __name__ == "__main__":
    main()
