"""How long a message waits from its XADD to the start of its handler, at 200 a second, next to a plain redis-py loop.

Usage: python -m bench.latency [--messages 3000] [--per-second 200] [--idle 10]. One run, an own Redis, AOF everysec.
Both are one process of one consumer, which idles first: its share of a core is measured too. The loop reads, notes the
time and finishes what it read in one MULTI; it checks nothing.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil
import redis.asyncio
import uvloop

from bench.handoff import TARGET, cpu_of, environment, step_fields
from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.redis import EmbeddedRedis

_SOURCE = "{l0}:arm.clock:normal"
_WARM = 200
"""Messages at the beginning that are not counted."""


async def _watch(
    client: redis.asyncio.Redis, command: Sequence[str], env: dict[str, str], options: argparse.Namespace
) -> tuple[list[float], float]:
    """The waits in ms, sorted, and the idle process' share of a core in percent."""
    await client.flushall()
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | env)
    try:
        while True:
            if await client.exists(_SOURCE):  # it makes its group on a stream that is not there yet
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        watched = psutil.Process(process.pid)
        before = cpu_of(watched)
        await asyncio.sleep(options.idle)
        idle = (cpu_of(watched) - before) / options.idle * 100
        await _send(client, options.messages + _WARM, 1 / options.per_second)
        while await client.xlen(TARGET) < options.messages + _WARM:
            if process.returncode is not None:
                raise SystemExit(f"{' '.join(command[1:])} ended; see above")
            await asyncio.sleep(0.05)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    waits = []
    entries: Any = await client.xrange(TARGET)
    for _, fields in entries:
        done = orjson.loads(fields[b"body"])
        output = done["output"]["value"] if "output" in done else done
        waits.append((output["at"] - output["sent"]) / 1e6)
    return sorted(waits[_WARM:]), idle


async def _send(client: redis.asyncio.Redis, messages: int, every_s: float) -> None:
    """On a fixed beat, however long an answer takes."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(messages):
        await asyncio.sleep(max(0.0, began + number * every_s - loop.time()))
        await client.xadd(_SOURCE, step_fields("clock", {"sent": time.time_ns()}))  # type: ignore[arg-type]  # invariant in redis-py


def _at(waits: list[float], share: float) -> float:
    return round(waits[min(len(waits) - 1, int(len(waits) * share))], 3)


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """The figures of one run."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, Ports() as ports:
        server = await EmbeddedRedis.start(Path(folder) / "redis", ports)
        client = redis.asyncio.Redis.from_url(server.url)
        contestants = {
            "": [sys.executable, "-m", "octollm", "worker", "clock"],
            "raw_": [sys.executable, "-m", "bench.rivals", "clock"],
        }
        try:
            for prefix, command in contestants.items():
                waits, idle = await _watch(client, command, environment(server.url), options)
                found[f"{prefix}latency_p50_ms"] = _at(waits, 0.5)
                found[f"{prefix}latency_p99_ms"] = _at(waits, 0.99)
                found[f"{prefix}idle_cpu_percent"] = round(idle, 2)
        finally:
            await client.aclose()
            await server.stop()
    return {**found, "latency_per_s": options.per_second, "latency_messages": options.messages}


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--messages", type=int, default=3_000)
    made.add_argument("--per-second", type=int, default=200)
    made.add_argument("--idle", type=int, default=10, help="seconds")
    return made


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(measure(parser().parse_args()))).decode())
