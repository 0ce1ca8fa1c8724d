"""The producer of a measurement, as a process of its own: pushes tasks over HTTP, prints the seconds it took.

Usage: python -m bench.push URL TASKS CONNECTIONS [KIND]. It speaks just as much HTTP as it needs, since it shares the
cores with what is measured: a whole client costs as much for each request as the pipeline does for each task.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import orjson
import uvloop

_ACCEPTED = b"202"


def _requests(host: str, tasks: int, kind: str) -> Iterator[bytes]:
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
    for number in range(tasks):
        body = orjson.dumps({"goal": "measure", "kind": kind, "input": {"n": number}})
        yield f"{head}{len(body)}\r\n\r\n".encode() + body


async def _answer(reader: asyncio.StreamReader) -> None:
    """Reads one answer to its end; anything but a 202 ends the measurement."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    body = await reader.readexactly(length)
    if lines[0].split(b" ")[1] != _ACCEPTED:
        raise SystemExit(f"refused: {lines[0].decode()} {body.decode()}")


async def _push(url: str, tasks: int, connections: int, kind: str = "five") -> float:
    address = urlsplit(url)
    requests = _requests(address.netloc, tasks, kind)
    began = time.perf_counter()

    async def one() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for request in requests:
            writer.write(request)
            await _answer(reader)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(connections)))
    return time.perf_counter() - began


if __name__ == "__main__":
    print(uvloop.run(_push(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:5])))
