"""The producer of a measurement, as a process of its own: pushes tasks over HTTP, prints the seconds it took.

Usage: python -m bench.push URL TASKS CONNECTIONS [KIND]
"""

import asyncio
import sys
import time

import httpx
import orjson
import uvloop


async def _push(url: str, tasks: int, connections: int, kind: str = "five") -> float:
    numbers = iter(range(tasks))
    began = time.perf_counter()

    async def one(client: httpx.AsyncClient) -> None:
        for number in numbers:
            body = orjson.dumps({"goal": "measure", "kind": kind, "input": {"n": number}})
            answer = await client.post("/v1/tasks", content=body, headers={"Content-Type": "application/json"})
            answer.raise_for_status()

    limits = httpx.Limits(max_connections=connections)
    async with httpx.AsyncClient(base_url=url, trust_env=False, limits=limits, timeout=30) as client:
        await asyncio.gather(*(one(client) for _ in range(connections)))
    return time.perf_counter() - began


if __name__ == "__main__":
    print(uvloop.run(_push(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:5])))
