"""How long a 202 takes in each durability mode, on one `octollm up` with a replica of its Redis, in one run.

Usage: python -m bench.durability [--tasks 300] [--per-second 20]. One producer sends on a fixed beat, each mode in turn
by the header OctoLLM-Durability; for `fsync` Redis is asked to sync before it answers. Loopback only.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson
import redis.asyncio
import uvloop

from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.process import Child
from octollm.devstack.embedded.redis import find_server

_MODES = ("redis", "fsync", "replicated(1)", "stored")
_BODY = orjson.dumps({"goal": "keep it", "kind": "note", "input": {"text": "x" * 400}})
_WARM = 20
"""Answers of each mode that are not counted."""


@asynccontextmanager
async def _stack(folder: Path) -> AsyncIterator[dict[str, str]]:
    """The addresses of a running `octollm up`."""
    said = folder / "addresses.json"
    with said.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "octollm", "up", "--json"),
            stdout=output,
            env=os.environ | {"OCTOLLM_LOG_LEVEL": "warning"},
        )
    try:
        while not said.read_bytes().endswith(b"\n}\n"):
            if process.returncode is not None:
                raise SystemExit("octollm up did not start; see above")
            await asyncio.sleep(0.1)
        yield orjson.loads(said.read_bytes())
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()


@asynccontextmanager
async def _replica(folder: Path, of: int) -> AsyncIterator[None]:
    """A Redis that follows the one on that port."""
    with Ports() as ports:
        port = ports.take(0)
        program, _ = find_server()
        command = [
            *(program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)),
            *("--replicaof", f"127.0.0.1 {of}"),
        ]
        replica = await Child.start("replica", command, log=folder / "replica.log", cwd=folder)
        try:
            yield
        finally:
            await replica.stop()


async def _measure(client: httpx.AsyncClient, mode: str, options: argparse.Namespace) -> list[float]:
    """The times of the answers in ms, sorted."""
    loop = asyncio.get_running_loop()

    async def one() -> float:
        began = time.perf_counter()
        headers = {"Content-Type": "application/json", "OctoLLM-Durability": mode}
        answer = await client.post("/v1/tasks", content=_BODY, headers=headers)
        took = (time.perf_counter() - began) * 1000
        if answer.status_code != 202 or answer.json()["durability"] != mode:
            raise SystemExit(f"{mode}: {answer.status_code} {answer.text}")
        return took

    began = loop.time()
    sent = []
    for number in range(options.tasks + _WARM):
        await asyncio.sleep(max(0.0, began + number / options.per_second - loop.time()))
        sent.append(asyncio.create_task(one()))
    return sorted((await asyncio.gather(*sent))[_WARM:])


async def _ready(client: httpx.AsyncClient, mode: str) -> None:
    """Until the reflex has noticed what its Redis offers now."""
    headers = {"Content-Type": "application/json", "OctoLLM-Durability": mode}
    while True:
        answer = await client.post("/v1/tasks", content=_BODY, headers=headers)
        if answer.status_code == 202 and answer.json()["durability"] == mode:
            return
        await asyncio.sleep(0.2)


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """The figures of one run."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with _stack(folder) as stack:
            port = urlsplit(stack["redis"]).port or 6379
            server = redis.asyncio.Redis(port=port)
            async with _replica(folder, port), httpx.AsyncClient(base_url=stack["http"], trust_env=False) as client:
                for mode in _MODES:
                    await server.config_set("appendfsync", "always" if mode == "fsync" else "everysec")
                    async with asyncio.timeout(60):
                        await _ready(client, mode)
                    times = await _measure(client, mode, options)
                    found[f"{mode}_p50_ms"] = round(times[len(times) // 2], 2)
                    found[f"{mode}_p99_ms"] = round(times[int(len(times) * 0.99)], 2)
            await server.aclose()
    return found


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--tasks", type=int, default=300)
    made.add_argument("--per-second", type=float, default=20)
    return made


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(measure(parser().parse_args()))).decode())
