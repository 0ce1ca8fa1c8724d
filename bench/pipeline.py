"""Tasks per second from HTTP accept to the terminal state in Postgres, the whole stack on this machine.

Usage: python -m bench.pipeline [--tasks 1000] [--connections 32]. Loopback only.
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

import asyncpg
import orjson
import uvloop

from octollm.runtime.logging import configure_logging
from octollm.runtime.settings import load_settings
from octollm.runtime.up import Running, Stack

_BENCH = Path(__file__).parent


async def _submit(running: Running, tasks: int, connections: int) -> float:
    """Push all tasks from another process, as a producer would; seconds until the last one was accepted."""
    command = (sys.executable, "-m", "bench.push", running.http_url, str(tasks), str(connections))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit("the producer failed; see above")
    return float(out)


async def _drained(running: Running, tasks: int) -> None:
    connection = await asyncpg.connect(running.postgres_dsn)
    try:
        while True:
            ended = await connection.fetchval("SELECT count(*) FROM tasks WHERE result IS NOT NULL")
            if ended >= tasks:
                break
            await asyncio.sleep(0.02)
        wrong = await connection.fetchval("SELECT count(*) FROM tasks WHERE state <> 'succeeded'")
        if wrong:
            raise SystemExit(f"{wrong} tasks did not succeed; the figure would mean nothing")
    finally:
        await connection.close()


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """The figures of one run."""
    os.environ["OCTOLLM_TOPOLOGY_FILE"] = str(_BENCH / "streams.yaml")
    os.environ["OCTOLLM_ORCHESTRATOR_RECIPES_DIR"] = str(_BENCH / "recipes")
    tasks, connections = options.tasks, options.connections
    settings = load_settings()
    configure_logging(settings.log.model_copy(update={"level": "warning"}))
    async with Stack(settings, progress=lambda line: print(line, file=sys.stderr)) as running:
        began = time.perf_counter()
        cpu = time.process_time()
        submit_s = await _submit(running, tasks, connections)
        await _drained(running, tasks)
        total_s = time.perf_counter() - began
        return {
            "tasks": tasks,
            "steps_per_task": 5,
            "submit_s": round(submit_s, 3),
            "total_s": round(total_s, 3),
            "tasks_per_s": round(tasks / total_s, 1),
            "python_cpu_s": round(time.process_time() - cpu, 3),
        }


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--tasks", type=int, default=1000)
    made.add_argument("--connections", type=int, default=32)
    return made


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(measure(parser().parse_args()))).decode())
