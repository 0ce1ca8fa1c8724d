"""Tasks per second from HTTP accept to the terminal state in Postgres, the whole stack on this machine.

Usage: python -m bench.pipeline [--tasks 3000] [--connections 32]. Loopback only. Redis and Postgres keep what they say
they keep (AOF everysec, fsync). The arm is a process of its own, as it is wherever arms are scaled; everything else is
one. `cpu_ms` is what each process used for a task.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import orjson
import psutil
import redis.asyncio
import uvloop

from bench.handoff import SOURCE, WORKER
from octollm.devstack.stack import Running, Stack
from octollm.observability.logging import configure_logging
from octollm.settings.loader import load_settings

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


async def measure(options: argparse.Namespace) -> dict[str, object]:
    """The figures of one run."""
    os.environ["OCTOLLM_TOPOLOGY_FILE"] = str(_BENCH / "streams.yaml")
    os.environ["OCTOLLM_ORCHESTRATOR_RECIPES_DIR"] = str(_BENCH / "recipes")
    tasks, connections = options.tasks, options.connections
    settings = load_settings()
    configure_logging(settings.log.model_copy(update={"level": "warning"}))
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(settings, data=Path(folder), without=["noop"], progress=lambda line: print(line, file=sys.stderr))
        async with stack as running, _arm(running):
            before, began = _cpu_by_process(), time.perf_counter()
            submit_s = await _submit(running, tasks, connections)
            await _drained(running, tasks)
            total_s, after = time.perf_counter() - began, _cpu_by_process()
    used = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    return {
        "tasks": tasks,
        "steps_per_task": 5,
        "submit_s": round(submit_s, 3),
        "total_s": round(total_s, 3),
        "tasks_per_s": round(tasks / total_s, 1),
        "cpu_ms": {name: round(seconds / tasks * 1000, 2) for name, seconds in sorted(used.items())},
    }


@asynccontextmanager
async def _arm(running: Running) -> AsyncIterator[None]:
    """`octollm worker noop`, ready."""
    env = os.environ | {
        "OCTOLLM_REDIS_URL": running.redis_url,
        "OCTOLLM_POSTGRES_DSN": running.postgres_dsn,
        "OCTOLLM_LOG_LEVEL": "warning",
    }
    process = await asyncio.create_subprocess_exec(*WORKER, env=env)
    try:
        client = redis.asyncio.Redis.from_url(running.redis_url)
        async with client:
            # It makes its group on a stream that is not there yet.
            while not await client.exists(SOURCE):  # noqa: ASYNC110  of another process nothing else can be seen
                await asyncio.sleep(0.05)
        yield
    finally:
        process.terminate()
        await process.wait()


def _cpu_by_process() -> dict[str, float]:
    """Seconds by name, of this process and what it started. A process that ends meanwhile is left out."""
    me = psutil.Process()
    used = {"python": sum(me.cpu_times()[:2])}
    for child in me.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            name = "arm" if child.name().startswith("python") else child.name()
            used[name] = used.get(name, 0.0) + sum(child.cpu_times()[:2])
    return used


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--tasks", type=int, default=3000)
    made.add_argument("--connections", type=int, default=32)
    return made


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(measure(parser().parse_args()))).decode())
