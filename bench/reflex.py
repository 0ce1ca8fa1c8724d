"""`make bench-reflex`: how many submissions the reflex accepts, how long each takes, and what it costs.

Usage: python -m bench.reflex [--seconds 10] [--rounds 3] [--connections 64] [--offered 10000] [--entries 300000]. Redis
of its own with AOF everysec, everything that the reflex does by default switched on, no worker; loopback only. The load
generator oha shares the cores with the servers.

Each round measures in turn a bare axum route that reads the same body and answers 202, and the reflex, both in a closed
loop; `reflex_per_s`, `bare_axum_per_s` and `ratio` are medians over the rounds. Then `p50_ms` to `p99_ms` come from an
open loop at `--offered` requests per second, and `ingest_per_s` from a stream with `--entries` entries that waits for
the reflex. An answer counts only if its task is in Redis afterwards. `cpu_us_per_request` is the CPU of the reflex in
the closed loop, `redis_cpu_us_per_request` that of Redis; `rss_mb` is the reflex's largest resident memory. The
topology is the shipped one, without the high-water mark: without an orchestrator nothing takes the tasks away.

Standard error also has the figures of each round, and pipelined XADD by redis-benchmark. The last line is one JSON
object.
"""

import argparse
import asyncio
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import psutil
import redis.asyncio
import uvloop

from bench.load import Report, closed_loop, open_loop
from octollm.devstack.embedded.ports import LOOPBACK, Ports
from octollm.devstack.embedded.process import Child
from octollm.devstack.embedded.redis import EmbeddedRedis
from octollm.runtime.programs import REFLEX, find_program

_TOPOLOGY = Path(__file__).parents[1] / "streams.yaml"
_STREAM = "{l0}:tasks:normal"
_INGEST = "ingest:default"
_BODY_BYTES = 600
_AT_ONCE = 500
_SAMPLE_S = 0.1
_PROSE = (
    "The quarterly report of the northern branch lists deliveries that were late, and names the carrier of each one. "
    "Compare it with the plan, and write down which routes need another carrier. "
)


@dataclass(frozen=True)
class Cost:
    """Of one run of the reflex in a closed loop."""

    per_s: float
    reflex_us: float
    redis_us: float


class Bench:
    """The servers of one run."""

    def __init__(self, folder: Path, ports: Ports, options: argparse.Namespace, server: EmbeddedRedis) -> None:
        """Takes a running Redis."""
        self.folder, self.ports, self.options, self.server = folder, ports, options, server
        self.redis = redis.asyncio.Redis.from_url(server.url)
        self.body = folder / "body.json"
        self.body.write_bytes(_body())
        self.topology = folder / "streams.yaml"
        self.topology.write_text(re.sub(r"(?m)^    high_water: .*$", "", _TOPOLOGY.read_text()))
        self.rss = 0

    async def bare_axum(self) -> float:
        """Accepted requests per second of the bare route."""
        port = self.ports.take()
        program = find_program(REFLEX).parent / "examples/bare_axum"
        command = (program, f"{LOOPBACK}:{port}")
        child = await Child.start("bare axum", command, log=self.folder / "bare_axum.log")
        try:
            url = f"http://{LOOPBACK}:{port}/v1/tasks"
            await _until_answered(child, url, 405)
            report = await closed_loop(url, self.body, self.options.seconds, self.options.connections)
        finally:
            await child.stop()
        _check(report)
        return report.per_s

    async def closed_loop(self) -> Cost:
        """Submissions as fast as the connections allow."""
        async with self._reflex() as (url, process):
            before = self._cpu(process)
            report = await closed_loop(url, self.body, self.options.seconds, self.options.connections)
            used = [after - earlier for after, earlier in zip(self._cpu(process), before, strict=True)]
        counted = await self._stored(report)
        reflex_us, redis_us = (seconds / counted * 1e6 for seconds in used)
        return Cost(counted / report.seconds, reflex_us, redis_us)

    async def open_loop(self) -> dict[str, float]:
        """Latencies in ms by percentile."""
        options = self.options
        async with self._reflex() as (url, _):
            report = await open_loop(url, self.body, options.seconds, options.connections, options.offered)
        counted = await self._stored(report)
        print(f"open loop: {counted / report.seconds:.0f} per s, {report.latencies_ms}", file=sys.stderr)
        return report.latencies_ms

    async def ingest(self) -> float:
        """Entries per second, from the first one that is read until the stream is empty."""
        await self.redis.flushall()
        entries, body = self.options.entries, self.body.read_bytes()
        for first in range(0, entries, _AT_ONCE):
            pipeline = self.redis.pipeline(transaction=False)
            for _ in range(min(_AT_ONCE, entries - first)):
                pipeline.xadd(_INGEST, {"body": body})
            await pipeline.execute()
        async with self._reflex(wait=False):
            while await self.redis.xlen(_INGEST) == entries:  # noqa: ASYNC110  another process, so nothing to wait for
                await asyncio.sleep(0.001)
            began = time.perf_counter()
            while await self.redis.xlen(_INGEST):  # noqa: ASYNC110  the same
                await asyncio.sleep(0.02)
            seconds = time.perf_counter() - began
        stored = await self._tasks()
        if stored != entries:
            raise SystemExit(f"{entries} entries became {stored} tasks; the figure would mean nothing")
        return float(entries / seconds)

    async def xadd(self) -> float | None:
        """XADDs of the same body per second, a hundred in a pipeline; None without redis-benchmark."""
        program = shutil.which("redis-benchmark")
        if program is None:
            return None
        port = self.server.url.rsplit(":", 1)[1].split("/", 1)[0]
        command = [
            "-p",
            port,
            "-q",
            "-P",
            "100",
            "-c",
            "4",
            "-n",
            "300000",
            "XADD",
            "bench",
            "*",
            "body",
            self.body.read_text(),
        ]
        process = await asyncio.create_subprocess_exec(program, *command, stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        await self.redis.flushall()
        found = re.findall(rb"([0-9.]+) requests per second", output)
        return float(found[-1]) if found else None

    @asynccontextmanager
    async def _reflex(self, *, wait: bool = True) -> AsyncIterator[tuple[str, psutil.Process]]:
        """A running reflex: where to submit, and its process."""
        if wait:
            await self.redis.flushall()
        port = self.ports.take()
        env = os.environ | {
            "OCTOLLM_REDIS_URL": self.server.url,
            "OCTOLLM_REFLEX_LISTEN": f"{LOOPBACK}:{port}",
            "OCTOLLM_TOPOLOGY_FILE": str(self.topology),
        }
        child = await Child.start("reflex", [find_program(REFLEX)], log=self.folder / "reflex.log", env=env)
        watch = asyncio.create_task(self._watch(child.pid))
        try:
            url = f"http://{LOOPBACK}:{port}"
            if wait:
                await _until_answered(child, f"{url}/readyz", 200)
            yield f"{url}/v1/tasks", psutil.Process(child.pid)
        finally:
            watch.cancel()
            await child.stop()

    async def _watch(self, pid: int) -> None:
        """Record the largest resident memory."""
        process = psutil.Process(pid)
        while True:
            self.rss = max(self.rss, process.memory_info().rss)
            await asyncio.sleep(_SAMPLE_S)

    def _cpu(self, reflex: psutil.Process) -> tuple[float, float]:
        """Seconds of CPU that the reflex and Redis have used."""
        server = psutil.Process(self.server.child.pid)
        return sum(reflex.cpu_times()[:2]), sum(server.cpu_times()[:2])

    async def _stored(self, report: Report) -> int:
        """How many of the accepted requests have their task in Redis."""
        _check(report)
        return min(report.accepted, await self._tasks())

    async def _tasks(self) -> int:
        """Tasks on the stream, and those that wait for it: two fields of the hash name the ends of a tenant's queue."""
        waiting: int = await self.redis.hlen(f"{_STREAM}:waiting")
        tenants: int = await self.redis.zcard(f"{_STREAM}:ring")
        return int(await self.redis.xlen(_STREAM)) + waiting - tenants


def _check(report: Report) -> None:
    if report.refused or not report.accepted:
        raise SystemExit(f"{report.refused} requests were not accepted; the figures would mean nothing")


async def _until_answered(child: Child, url: str, status: int) -> None:
    """Until a GET is answered with this status."""
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(30):
        while child.exit_code is None:
            with suppress(httpx.TransportError):
                if (await client.get(url)).status_code == status:
                    return
            await asyncio.sleep(0.05)
    raise child.ended()


def _body() -> bytes:
    """A submission of the measured size, with prose, numbers and nested values."""
    submission = {
        "goal": "Summarise the report for the weekly meeting",
        "kind": "note",
        "input": {"text": "", "limits": {"sentences": 5, "score": 0.75}, "tags": ["weekly", "carriers"], "draft": True},
        "metadata": {"origin": "planning", "batch": "2026-11"},
    }
    fixed = len(orjson.dumps(submission))
    submission["input"]["text"] = (_PROSE * 10)[: _BODY_BYTES - fixed]  # type: ignore[index]  # a dict, as written above
    return orjson.dumps(submission)


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """The figures of one run."""
    bare, costs = [], []
    with tempfile.TemporaryDirectory() as place, Ports() as ports:
        folder = Path(place)
        server = await EmbeddedRedis.start(folder / "redis", ports)
        bench = Bench(folder, ports, options, server)
        try:
            print(f"pipelined XADD: {await bench.xadd()} per s", file=sys.stderr)
            for number in range(options.rounds):
                bare.append(await bench.bare_axum())
                costs.append(await bench.closed_loop())
                print(f"round {number + 1}: bare axum {bare[-1]:.0f} per s, {costs[-1]}", file=sys.stderr)
            latencies = await bench.open_loop()
            ingest_per_s = await bench.ingest()
        finally:
            await bench.redis.aclose()
            await server.stop()
    ratios = [cost.per_s / one for cost, one in zip(costs, bare, strict=True)]
    return {
        "reflex_per_s": round(statistics.median(cost.per_s for cost in costs)),
        "bare_axum_per_s": round(statistics.median(bare)),
        "ratio": round(statistics.median(ratios), 3),
        **{f"{name}_ms": round(latencies[name], 3) for name in ("p50", "p95", "p99")},
        "ingest_per_s": round(ingest_per_s),
        "rss_mb": round(bench.rss / 1e6, 1),
        "cpu_us_per_request": round(statistics.median(cost.reflex_us for cost in costs), 1),
        "redis_cpu_us_per_request": round(statistics.median(cost.redis_us for cost in costs), 1),
    }


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seconds", type=int, default=10, help="of each run of the load generator")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--connections", type=int, default=64)
    made.add_argument("--offered", type=int, default=10_000, help="requests per second of the open loop")
    made.add_argument("--entries", type=int, default=300_000, help="on the ingest stream")
    return made


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(measure(parser().parse_args()))).decode())
