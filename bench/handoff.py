"""Hops per second that one worker process finishes and passes on, next to stock FastStream and a plain redis-py loop.

Usage: python -m bench.handoff [--messages 40000] [--stock 4000] [--rounds 3]. One run, one machine, an own Redis with
AOF everysec. A hop: read a step of 400 bytes, run a handler that does nothing, put what follows on the next stream,
acknowledge and delete, so that a crash at any moment loses nothing. The raw loop does the same in one MULTI for a
hundred entries, without owner check, in-flight index, schema or retries: it is the limit, not a rival. Stock FastStream
is used as documented, a message at a time. Rounds take turns; each figure is the median of its rounds, and each ratio
the median of the rounds' ratios, since what disturbs the machine for a while disturbs all that run in it.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil
import redis.asyncio
import uvloop

from octollm.contracts import StepRequested, write
from octollm.contracts.ids import message_id, new_task_id
from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.redis import EmbeddedRedis
from octollm.settings.loader import load_settings

_BENCH = Path(__file__).parent
SOURCE, TARGET = "{l0}:arm.noop:normal", "{l0}:steps.done"
_BODY = 400
_POLL_S = 0.005


@dataclass(frozen=True)
class Figure:
    """One round of one contestant."""

    per_s: float
    cpu_s_per_10k: float
    rss_mb: float


def step_fields(arm: str, values: dict[str, object], fill_to: int = 0) -> dict[str, str | bytes]:
    """A step as the orchestrator sends it, with a body of `fill_to` bytes where it would be shorter."""
    task = new_task_id("l0")
    step = StepRequested(
        task=task, run=1, step="hop", round=0, attempt=1, tenant="default", arm=arm, priority="normal",
        failures=0, input={**values, "fill": ""}, timeout_s=30,
    )  # fmt: skip
    step.input["fill"] = "x" * (fill_to - len(write(step)))
    return {
        "type": "step.requested.v1", "id": message_id(task, 1, "hop", 0, 1), "tenant": "default",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "body": write(step),
    }  # fmt: skip


async def fill(client: redis.asyncio.Redis, messages: int) -> None:
    """Steps on an empty server."""
    await client.flushall()
    pipe = client.pipeline(transaction=False)
    for number in range(messages):
        pipe.xadd(SOURCE, step_fields("noop", {"n": number}, _BODY))  # type: ignore[arg-type]  # invariant in redis-py
        if number % 1000 == 999:
            await pipe.execute()
    await pipe.execute()


def environment(url: str) -> dict[str, str]:
    """Of a worker that is measured."""
    return {
        "OCTOLLM_REDIS_URL": url,
        "OCTOLLM_TOPOLOGY_FILE": str(_BENCH / "streams.yaml"),
        "OCTOLLM_ORCHESTRATOR_RECIPES_DIR": str(_BENCH / "recipes"),
        "OCTOLLM_LOG_LEVEL": "warning",
    }


WORKER = (sys.executable, "-m", "octollm", "worker", "noop", "--concurrency", "256")


async def drain(client: redis.asyncio.Redis, command: Sequence[str], env: dict[str, str], messages: int) -> Figure:
    """Start the contestant and watch it: from the first message passed on to the one with this number."""
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | env)
    watched = psutil.Process(process.pid)
    try:
        first, first_at, first_cpu = 0, 0.0, 0.0
        while True:
            passed = await client.xlen(TARGET)
            if first == 0 and passed:
                first, first_at, first_cpu = passed, time.perf_counter(), cpu_of(watched)
            if passed >= messages:
                break
            if process.returncode is not None:
                raise SystemExit(f"{' '.join(command[1:])} ended; see above")
            await asyncio.sleep(_POLL_S)
        took, cpu = time.perf_counter() - first_at, cpu_of(watched) - first_cpu
        rss = watched.memory_info().rss / 2**20
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    hops = messages - first
    return Figure(hops / took, cpu / hops * 10_000, rss)


def cpu_of(process: psutil.Process) -> float:
    """Seconds it has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """The figures of one run."""
    messages, stock, rounds = options.messages, options.stock, options.rounds
    contestants = {
        "raw_limit": ((sys.executable, "-m", "bench.rivals", "raw"), messages),
        "handoff": (WORKER, messages),
        "faststream": ((sys.executable, "-m", "bench.rivals", "faststream"), stock),
    }
    found: dict[str, list[Figure]] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as folder, Ports() as ports:
        server = await EmbeddedRedis.start(Path(folder) / "redis", ports, server=load_settings().redis.server)
        client = redis.asyncio.Redis.from_url(server.url)
        env = environment(server.url)
        try:
            for number in range(rounds):
                for name, (command, count) in contestants.items():
                    await fill(client, count)
                    figure = await drain(client, command, env, count)
                    found[name].append(figure)
                    print(f"round {number + 1} {name}: {figure.per_s:.0f} per s", file=sys.stderr)
        finally:
            await client.aclose()
            await server.stop()
    per_s = {name: statistics.median(one.per_s for one in figures) for name, figures in found.items()}
    ours = found["handoff"]

    def ratio(other: str) -> float:
        return statistics.median(one.per_s / two.per_s for one, two in zip(ours, found[other], strict=True))

    return {
        "handoff_per_s": round(per_s["handoff"]),
        "faststream_per_s": round(per_s["faststream"]),
        "raw_limit_per_s": round(per_s["raw_limit"]),
        "of_raw": round(ratio("raw_limit"), 3),
        "times_faststream": round(ratio("faststream"), 2),
        "cpu_s_per_10k": round(statistics.median(one.cpu_s_per_10k for one in ours), 3),
        "rss_mb": round(max(one.rss_mb for one in ours), 1),
        "messages": messages,
        "rounds": rounds,
    }


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--messages", type=int, default=40_000)
    made.add_argument("--stock", type=int, default=4_000)
    made.add_argument("--rounds", type=int, default=3)
    return made


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(measure(parser().parse_args()))).decode())
