"""An HTTP server that answers as it is asked to, also by breaking off, and both clients behind one face."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from octollm.client import AsyncClient, Client

TASK = "l0-01jd0000000000000000000000"


@dataclass(frozen=True)
class Request:
    """As it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What the server writes before it closes the connection. Without `length` the client cannot see a cut."""

    status: int = 200
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """Announce more than is sent, then close."""

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> "Answer":
        kind = "application/problem+json" if status >= 400 else "application/json"
        return cls(status, orjson.dumps(value), {"Content-Type": kind, **headers})

    @classmethod
    def stream(cls, *frames: str, cut: bool = False) -> "Answer":
        return cls(200, "".join(frames).encode(), {"Content-Type": "text/event-stream"}, cut)

    def __bytes__(self) -> bytes:
        length = len(self.content) + (100 if self.cut else 0)
        head = [f"HTTP/1.1 {self.status} X", "Connection: close", *(f"{k}: {v}" for k, v in self.headers.items())]
        if self.status != 204:
            head.append(f"Content-Length: {length}")
        return "\r\n".join([*head, "", ""]).encode() + self.content


DROP = Answer(status=0)
"""Close without a word."""


class Server:
    """Gives its answers in order; the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            method, target, _ = first.split(" ")
            self.requests.append(Request(method, target, headers, body))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer is not DROP:
                writer.write(bytes(answer))
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers: Answer) -> AsyncIterator[Server]:
    server = Server(*answers)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield server


class Blocking:
    """`Client` on a thread."""

    def __init__(self, url: str, **options: Any) -> None:
        self._client = Client(url, **options)

    async def __aenter__(self) -> "Blocking":
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._client.close)

    async def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(getattr(self._client, name), *arguments, **options)

    async def collect(self, name: str, *arguments: Any, **options: Any) -> list[Any]:
        return await asyncio.to_thread(lambda: list(getattr(self._client, name)(*arguments, **options)))


class Asyncio:
    """`AsyncClient`."""

    def __init__(self, url: str, **options: Any) -> None:
        self._client = AsyncClient(url, **options)

    async def __aenter__(self) -> "Asyncio":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return await getattr(self._client, name)(*arguments, **options)

    async def collect(self, name: str, *arguments: Any, **options: Any) -> list[Any]:
        return [item async for item in getattr(self._client, name)(*arguments, **options)]


Made = Callable[..., Blocking | Asyncio]


AT = "2026-01-31T12:00:00.000Z"
WAITING = 'event: waiting\ndata: {"step": "run", "arm": "executor", "for_s": 12}\n\n'


def status(state: str) -> Answer:
    known = {"task": TASK, "tenant": "default", "state": state, "run": 1, "version": 3, "stored": True}
    return Answer.json({**known, "created_at": AT})


def problem(status: int, code: str, detail: str, field: str | None = None, **headers: str) -> Answer:
    body = {"type": f"urn:octollm:problem:{code}", "title": "t", "status": status, "detail": detail}
    return Answer.json(body if field is None else {**body, "field": field}, status, **headers)


def frame(seq: int, event: str, run: int = 1, **fields: Any) -> str:
    body = {"task": TASK, "run": run, "seq": seq, "tenant": "default", "at": AT, "event": event, **fields}
    return f"id: {run}-{seq}\nevent: {event}\ndata: {orjson.dumps(body).decode()}\n\n"
