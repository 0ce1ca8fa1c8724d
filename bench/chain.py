"""Direct hand-off on and off: tasks per second, time per task and transactions per task of a chain of five steps.

Usage: python -m bench.chain [--tasks 100] [--connections 16] [--rounds 10]. Loopback only. Two whole stacks stand
next to each other and take turns, one with it and one without, so that what disturbs the machine disturbs both. The
last line is one JSON object; ratios are medians over rounds.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import orjson
import uvloop

from octollm.devstack.stack import Running, Stack
from octollm.observability.logging import configure_logging
from octollm.settings.loader import load_settings

_BENCH = Path(__file__).parent
_SWITCH = "OCTOLLM_HANDOFF_DIRECT"
_ALONE = 10
"""Tasks that are pushed one by one, for the time that one takes when nothing else runs."""
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
_ALONE_MS = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - received_at) * 1000)
FROM (SELECT * FROM tasks ORDER BY received_at DESC LIMIT 10) AS newest
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


async def _alone(running: Running, watch: _Watch, done: int) -> None:
    """Each task once the one before has ended."""
    for number in range(_ALONE):
        # A connection each: one that rests while the other stack has its turn may be cut.
        async with httpx.AsyncClient(base_url=running.http_url, trust_env=False, timeout=30) as client:
            body = {"goal": "measure", "kind": "chain", "input": {"n": number}}
            (await client.post("/v1/tasks", json=body)).raise_for_status()
        await watch.ended(done + number + 1)


async def _burst(running: Running, watch: _Watch, tasks: int, connections: int) -> dict[str, float]:
    """One round on one stack."""
    done = int(await watch.ask("SELECT count(*) FROM tasks"))
    await _alone(running, watch, done)
    alone_ms = await watch.ask(_ALONE_MS)
    before, cpu, began = await watch.commits(), time.process_time(), time.perf_counter()
    pushing = asyncio.create_task(_push(running, tasks, connections))
    await watch.ended(done + _ALONE + tasks)
    seconds = time.perf_counter() - began
    cpu = time.process_time() - cpu
    await pushing
    commits = await watch.commits() - before
    return {
        "tasks_per_s": round(tasks / seconds, 1),
        "alone_p50_ms": round(alone_ms, 1),
        "transactions_per_task": round(commits / tasks, 3),
        "python_cpu_ms_per_task": round(cpu * 1000 / tasks, 2),
    }


@asynccontextmanager
async def _stack(*, direct: bool) -> AsyncIterator[tuple[Running, _Watch]]:
    os.environ[_SWITCH] = str(direct).lower()
    settings = load_settings()
    configure_logging(settings.log.model_copy(update={"level": "error"}))
    async with Stack(settings) as running:
        connection = await asyncpg.connect(running.postgres_dsn)
        try:
            yield running, _Watch(connection)
        finally:
            await connection.close()


async def _rounds(options: argparse.Namespace) -> dict[str, object]:
    found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    async with _stack(direct=False) as without, _stack(direct=True) as with_it:
        for number in range(options.rounds + 1):
            for direct in (False, True) if number % 2 == 0 else (True, False):
                one = await _burst(*(with_it if direct else without), options.tasks, options.connections)
                print("on " if direct else "off", orjson.dumps(one).decode(), file=sys.stderr)
                if number > 0:  # the first one warms up
                    found[direct].append(one)
    figures: dict[str, object] = {"tasks": options.tasks, "steps_per_task": 5, "rounds": options.rounds}
    for name in found[True][0]:
        off, on = ([one[name] for one in found[direct]] for direct in (False, True))
        ratio = statistics.median(b / a for a, b in zip(off, on, strict=True))
        figures[name] = {
            "off": round(statistics.median(off), 3),
            "on": round(statistics.median(on), 3),
            "ratio": round(ratio, 3),
        }
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    os.environ["OCTOLLM_TOPOLOGY_FILE"] = str(_BENCH / "streams.yaml")
    os.environ["OCTOLLM_ORCHESTRATOR_RECIPES_DIR"] = str(_BENCH / "recipes")
    print(orjson.dumps(uvloop.run(_rounds(options))).decode())


if __name__ == "__main__":
    main()
