"""How long a tenant's first step waits behind another tenant's pile, and what fairness costs in throughput.

Usage: python -m bench.fairness [--pile 100000] [--probes 15] [--messages 30000] [--rounds 3] [--window 64]. One run, an
own Redis with AOF everysec, one worker process with the arm `noop` (it does nothing) and as many slots as the window.
All work goes through the hand-off scripts, as the orchestrator sends it.

Wait: one step of a tenant that never had any, on an idle system, then again and again while another tenant's pile is
worked on. The position is the number of the other's steps that end between its sending and its end. Next to it the same
without a window, a plain queue, behind a tenth of the pile: there one probe is enough, since it waits for all of it.

Throughput: one tenant alone, so that all but a window of its steps wait and each has to be let in (`waiting`), and
steps that are on their stream already (`ready`), each next to the same without windows. Rounds take turns; each figure
is the median of its rounds.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil
import redis.asyncio
import uvloop

from octollm.contracts import StepRequested, write
from octollm.contracts.ids import in_flight_field, message_id, new_task_id
from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.redis import EmbeddedRedis
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Handoff
from octollm.protocol.operations import Publish
from octollm.resources import schemas_path
from octollm.topology import LaneKeys, Topology, load_topology

_BENCH = Path(__file__).parent
_KEYS = LaneKeys("l0")
_SOURCE = "{l0}:arm.noop:normal"
_AT_ONCE = 500
_POLL_S = 0.0002


@dataclass(frozen=True)
class Wait:
    """Of one tenant's first step."""

    position: int
    seconds: float


@dataclass(frozen=True)
class Speed:
    """Of one round."""

    per_s: float
    cpu_s_per_10k: float
    """Of Redis and the worker; says more than `per_s` on a machine that others use."""


@dataclass(frozen=True)
class Setup:
    """One of the two topologies."""

    file: Path
    topology: Topology
    slots: int

    @property
    def fairness(self) -> Fairness:
        """What senders need."""
        return Fairness(self.topology, "l0")


def setup(folder: Path, name: str, slots: int, **limits: int) -> Setup:
    """The topology of the benchmarks, whose arm `noop` has these limits and no other one has any."""
    text, handler = (_BENCH / "streams.yaml").read_text(), "    handler: bench.noop:Noop\n"
    plain = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("    window:"))
    file = folder / f"{name}.yaml"
    extra = "".join(f"    {key}: {value}\n" for key, value in limits.items())
    file.write_text(plain.replace(handler, handler + extra))
    return Setup(file, load_topology(file, schemas_path()), slots)


def _step(tenant: str, number: int) -> Publish:
    task = new_task_id("l0")
    step = StepRequested(
        task=task, run=1, step="hop", round=0, attempt=1, tenant=tenant, arm="noop", priority="normal", failures=0,
        input={"n": number, "fill": "x" * 200}, timeout_s=30,
    )  # fmt: skip
    fields: dict[str, str | bytes] = {
        "type": "step.requested.v1", "id": message_id(task, 1, "hop", 0, 1), "tenant": tenant,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "body": write(step),
    }  # fmt: skip
    return Publish(_SOURCE, fields, in_flight_field(task, 1, "hop", 0))


async def _send(handoff: Handoff, steps: Sequence[Publish]) -> None:
    for first in range(0, len(steps), _AT_ONCE):
        await handoff.publish(steps[first : first + _AT_ONCE])


@asynccontextmanager
async def _worker(url: str, setup: Setup) -> AsyncIterator[psutil.Process]:
    env = os.environ | {
        "OCTOLLM_REDIS_URL": url,
        "OCTOLLM_TOPOLOGY_FILE": str(setup.file),
        "OCTOLLM_ORCHESTRATOR_RECIPES_DIR": str(_BENCH / "recipes"),
        "OCTOLLM_LOG_LEVEL": "warning",
    }
    command = (sys.executable, "-m", "octollm", "worker", "noop", "--concurrency", str(setup.slots))
    process = await asyncio.create_subprocess_exec(*command, env=env)
    try:
        yield psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _probe(client: redis.asyncio.Redis, handoff: Handoff, tenant: str) -> Wait:
    """Send one step and wait for its end."""
    step = _step(tenant, 0)
    before: Any = await client.xrevrange(_KEYS.done, count=1)
    began = time.perf_counter()
    await handoff.publish([step])
    while True:
        named = str(await client.hget(_KEYS.in_flight, step.in_flight), "ascii")  # type: ignore[arg-type]  # bytes by our decoding
        key, _, entry = named.partition(" ")
        if key == _KEYS.done:
            break
        await asyncio.sleep(_POLL_S)
    seconds = time.perf_counter() - began
    start = f"({before[0][0].decode()}" if before else "-"
    position, last = 0, start
    while True:
        page: Any = await client.xrange(_KEYS.done, last, f"({entry}", count=5000)
        if not page:
            break
        position, last = position + len(page), f"({page[-1][0].decode()}"
    return Wait(position, seconds)


async def _until_ended(client: redis.asyncio.Redis, steps: int) -> int:
    while True:
        ended = int(await client.xlen(_KEYS.done))
        if ended >= steps:
            return ended
        await asyncio.sleep(0.002)


async def _waits(client: redis.asyncio.Redis, url: str, setup: Setup, pile: int, probes: int) -> tuple[Wait, Wait]:
    """Median wait on an idle system and behind the pile."""
    await client.flushall()
    handoff = Handoff(client, "l0", "", "bench", setup.fairness)
    async with _worker(url, setup):
        await _probe(client, handoff, "warm")
        idle = [await _probe(client, handoff, f"idle{number}") for number in range(15)]
    await client.flushall()
    await _send(handoff, [_step("pile", number) for number in range(pile)])
    async with _worker(url, setup):
        await _until_ended(client, min(1000, pile // 2))
        behind = [await _probe(client, handoff, f"first{number}") for number in range(probes)]
        if await client.xlen(_KEYS.done) >= pile + probes and probes > 1:
            raise SystemExit("the pile was gone before the probes were through; take a larger --pile")
    return _median(idle), _median(behind)


def _median(waits: Sequence[Wait]) -> Wait:
    position = statistics.median(one.position for one in waits)
    return Wait(round(position), statistics.median(one.seconds for one in waits))


async def throughput(
    client: redis.asyncio.Redis, url: str, setup: Setup, messages: int, *, sender: Fairness | None, tenants: int = 1
) -> Speed:
    """From the first end to the last. `sender`: how the messages are sent; None: all lie on the stream at once."""
    await client.flushall()
    handoff = Handoff(client, "l0", "", "bench", sender)
    await _send(handoff, [_step(f"tenant{number % tenants}", number) for number in range(messages)])
    async with _worker(url, setup) as worker:
        first, first_at = await _until_ended(client, 1), time.perf_counter()
        cpu = await _cpu(client, worker)
        await _until_ended(client, messages)
        took, cpu, steps = time.perf_counter() - first_at, await _cpu(client, worker) - cpu, messages - first
        return Speed(steps / took, cpu / steps * 10_000)


async def _cpu(client: redis.asyncio.Redis, worker: psutil.Process) -> float:
    server, times = await client.info("cpu"), worker.cpu_times()
    return float(server["used_cpu_user"] + server["used_cpu_sys"] + times.user + times.system)


async def _measure(options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place, Ports() as ports:
        folder = Path(place)
        setups = {
            "fair": setup(folder, "fair", options.window, window=options.window),
            "plain": setup(folder, "plain", options.window),
        }
        server = await EmbeddedRedis.start(folder / "redis", ports)
        client = redis.asyncio.Redis.from_url(server.url)
        try:
            idle, behind = await _waits(client, server.url, setups["fair"], options.pile, options.probes)
            _, plain = await _waits(client, server.url, setups["plain"], options.pile // 10, 1)
            per_s: dict[tuple[str, bool], list[Speed]] = {}
            for _ in range(options.rounds):
                for ready in (False, True):
                    for name, one in setups.items():
                        sender = None if ready else one.fairness
                        found = await throughput(client, server.url, one, options.messages, sender=sender)
                        per_s.setdefault((name, ready), []).append(found)
                        print(f"{name} {'ready' if ready else 'waiting'}: {found}", file=sys.stderr)
        finally:
            await client.aclose()
            await server.stop()
    median = {key: statistics.median(one.per_s for one in found) for key, found in per_s.items()}
    cpu = {key: statistics.median(one.cpu_s_per_10k for one in found) for key, found in per_s.items()}
    return {
        "pile": options.pile,
        "window": options.window,
        "position": behind.position,
        "wait_idle_ms": round(idle.seconds * 1000, 2),
        "wait_behind_pile_ms": round(behind.seconds * 1000, 2),
        "wait_ratio": round(behind.seconds / idle.seconds, 2),
        "plain_pile": options.pile // 10,
        "plain_position": plain.position,
        "plain_wait_ms": round(plain.seconds * 1000, 2),
        "fair_waiting_per_s": round(median["fair", False]),
        "plain_waiting_per_s": round(median["plain", False]),
        "waiting_ratio": round(median["fair", False] / median["plain", False], 3),
        "waiting_cpu_ratio": round(cpu["fair", False] / cpu["plain", False], 3),
        "fair_ready_per_s": round(median["fair", True]),
        "plain_ready_per_s": round(median["plain", True]),
        "ready_ratio": round(median["fair", True] / median["plain", True], 3),
        "ready_cpu_ratio": round(cpu["fair", True] / cpu["plain", True], 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pile", type=int, default=100_000)
    parser.add_argument("--probes", type=int, default=15)
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=64)
    print(orjson.dumps(uvloop.run(_measure(parser.parse_args()))).decode())


if __name__ == "__main__":
    main()
