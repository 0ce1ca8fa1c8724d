"""A TCP proxy between one process and one server: slows, cuts, holds, loses, and calls out when a request passes.

It stands where the network is, so that a process can be killed between a request and its reply without a word about
that in the process itself. Loopback only.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

Moment = Literal["before_request", "after_request", "before_reply", "after_reply"]
COMMIT = b"COMMIT;"
STORES = b'"event":"'
"""In the orchestrator's transactions that store what follows from a message: each tells at least one event."""
_PIECE = 64 * 1024
_LONGEST = 4 * 1024 * 1024


@dataclass
class Trap:
    """Calls `spring` once, at a moment around the first request that holds `pattern`.

    `before_request`: nothing has reached the server. `after_request`: the server has it, nobody waits for its reply.
    `before_reply`: the server has answered, the process does not know. `after_reply`: the process has the answer.
    """

    pattern: bytes
    moment: Moment
    spring: Callable[[], Awaitable[None] | None]
    after: bytes | None = None
    """Only in a transaction of Postgres in which this has passed before: most commit nothing that anybody waits for."""
    sprung: bool = False

    async def fire(self) -> None:
        """Once."""
        if not self.sprung:
            self.sprung = True
            result = self.spring()
            if result is not None:
                await result


class Proxy:
    """One listener and the server behind it, which may be changed while it runs."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        """`target`: host and port, or the path of a Unix socket."""
        self.target = target
        self.delay_s = 0.0
        self.held = False
        """Connections stay, nothing passes until they are released."""
        self.refuses = False
        self.traps: list[Trap] = []
        self.port = 0
        self._released = asyncio.Event()
        self._released.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._pairs: set[_Pair] = set()
        self.opened = 0
        """How many connections there have been."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port of the loopback address."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        self.release()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> int:
        """Cut every connection; how many there were."""
        cut = len(self._open)
        for writer in list(self._open):
            transport = writer.transport
            if isinstance(transport, asyncio.Transport):
                transport.abort()
        return cut

    def lose(self) -> int:
        """Make every connection half-open and return how many there were.

        Nothing passes on them again, and neither side learns of it: each keeps its half until it gives up by itself,
        and the other does not learn that either. New connections work.
        """
        found = [pair for pair in self._pairs if not pair.lost]
        for pair in found:
            pair.lost = True
        return len(found)

    @property
    def connections(self) -> int:
        """How many connections work at this moment."""
        return sum(not pair.lost for pair in self._pairs)

    @property
    def unnoticed(self) -> int:
        """How many lost connections have swallowed something and are still kept by the process."""
        return sum(pair.swallowed and not pair.given_up for pair in self._pairs)

    def hold(self) -> None:
        """From now on nothing passes, in either direction, until `release`."""
        self.held = True
        self._released.clear()

    def release(self) -> None:
        """Let everything pass again."""
        self.held = False
        self._released.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.close()
            return
        try:
            if isinstance(self.target, str):
                far_reader, far_writer = await asyncio.open_unix_connection(self.target)
            else:
                far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        pair = _Pair(self, reader, writer, far_reader, far_writer)
        self.opened += 1
        self._pairs.add(pair)
        self._open |= {writer, far_writer}
        task = asyncio.ensure_future(pair.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait([task])
        finally:
            self._open -= {writer, far_writer}
            self._pairs.discard(pair)

    async def passing(self) -> None:
        """What every piece of data waits for."""
        await self._released.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)


class _Pair:
    """One connection with its other half."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self.lost = False
        """Half-open: what either side sends is swallowed."""
        self.swallowed = False
        self.given_up = False
        """The process has closed its half."""
        self._near = (reader, writer)
        self._far = (far_reader, far_writer)
        self._waiting: list[Trap] = []
        """Traps whose request has passed on this connection; the next data from the server is their reply."""
        self._transaction = b""
        """What has passed since the last BEGIN, while a trap asks for it."""

    async def run(self) -> None:
        """Until either side ends; then both do."""
        ways = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._replies())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self.lost:
                await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for _, writer in (self._near, self._far):
                writer.close()

    async def _requests(self) -> None:
        reader, (_, writer) = self._near[0], self._far
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                await self._proxy.passing()
                if self.lost:
                    self.swallowed = True
                    continue
                met = self._met(data)
                for trap in met:
                    if trap.moment == "before_request":
                        await trap.fire()
                        return
                self._waiting += [trap for trap in met if trap.moment in {"before_reply", "after_reply"}]
                writer.write(data)
                await writer.drain()
                for trap in met:
                    if trap.moment == "after_request":
                        await trap.fire()
        self.given_up = True

    def _met(self, data: bytes) -> list[Trap]:
        traps = [trap for trap in self._proxy.traps if not trap.sprung]
        self._transaction = (self._transaction + data)[-_LONGEST:] if any(trap.after for trap in traps) else b""
        _, begun, rest = self._transaction.rpartition(b"BEGIN;")
        self._transaction = begun + rest
        return [trap for trap in traps if trap.pattern in data and (trap.after or b"") in self._transaction]

    async def _replies(self) -> None:
        reader, (_, writer) = self._far[0], self._near
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE):
                await self._proxy.passing()
                if self.lost:
                    self.swallowed = True
                    continue
                met, self._waiting = self._waiting, []
                for trap in met:
                    if trap.moment == "before_reply" and not trap.sprung:
                        await trap.fire()
                        return
                writer.write(data)
                await writer.drain()
                for trap in met:
                    await trap.fire()
