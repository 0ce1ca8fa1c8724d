"""The pool of processes that work on untrusted content.

A function that gets it may take minutes for a few bytes, or all memory: a thread could not be ended, and an event loop
would stand still. A caller that is cancelled, for instance by its step's time limit, ends the process that works for
it. Other calls are not affected, and the next call starts another process.
"""

import asyncio
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

import structlog

from octollm.errors import PermanentError, TransientError
from octollm.isolation.messages import HEADER, Failed, Ok, Permanent, Reply
from octollm.isolation.shares import Shares

MAX_PROCESSES = max(8, 2 * (os.cpu_count() or 1))
"""Calls that run at the same time; others wait, within the time limits of their steps. A tenant alone gets half."""
_MOST_IDLE = 2
"""Processes that are kept for the next calls; starting one takes about half a second."""
_log = structlog.get_logger(__name__)
Result = TypeVar("Result")


class ProcessEndedError(TransientError):
    """The process that worked on a call has ended."""

    def __init__(self) -> None:
        super().__init__("process_ended", "the process that worked on the step's content ended")


class CallTimeoutError(TransientError):
    """A call did not end within its time limit."""

    def __init__(self, worked_s: float) -> None:
        """`worked_s`: how long a process worked on it; 0 if it only waited for one."""
        worked = f"the step's content was worked on for {worked_s:.1f} s and did not end"
        super().__init__("timeout", worked if worked_s else "no process was free for the step's content in time")
        self.worked_s = worked_s


class ProcessPool:
    """Calls functions for the steps of all tenants. One event loop; it owns its processes and no task."""

    def __init__(self) -> None:
        self._shares = Shares(MAX_PROCESSES)
        self._idle: list[_Child] = []
        self._closed = False

    async def run(
        self, function: Callable[..., Result], *args: object, tenant: str = "", limit_s: float | None = None
    ) -> Result:
        """See `Isolation.run`.

        `tenant`: whose share of the processes it uses. `limit_s`: without it there is no time limit.

        Raises CallTimeoutError after `limit_s`, which includes the wait for a process, and ProcessEndedError if the
        process ends.
        """
        request = pickle.dumps((function, args), pickle.HIGHEST_PROTOCOL)
        work = _Work()
        try:
            async with asyncio.timeout(limit_s):
                raw = await self._answer(function, request, tenant, work)
        except TimeoutError as error:
            raise CallTimeoutError(work.ended - work.began) from error
        reply: Reply = pickle.loads(raw)  # noqa: S301  written by a child of this process
        match reply:
            case Ok(value):
                result: Result = value
                return result
            case Permanent(code, message):
                raise PermanentError(code, message)
            case Failed(message, may_pass=True):
                raise TransientError("internal", f"the arm broke: {message}")
            case Failed(message):
                raise PermanentError("internal", f"the arm broke: {message}")

    async def _answer(self, function: Callable[..., object], request: bytes, tenant: str, work: "_Work") -> bytes:
        async with self._shares.one(tenant):
            child = self._take() or await _Child.start()
            raw: bytes | None = None
            work.began = monotonic()
            try:
                raw = await child.ask(request)
            except (OSError, EOFError) as error:
                _log.warning("a process for untrusted content ended", function=function.__qualname__)
                raise ProcessEndedError from error
            finally:
                work.ended = monotonic()
                if raw is not None and not self._closed and len(self._idle) < _MOST_IDLE:
                    self._idle.append(child)
                else:
                    await child.end()
            return raw

    async def close(self) -> None:
        """End the idle processes. Those that work end with their calls."""
        self._closed = True
        while self._idle:
            await self._idle.pop().end()

    def _take(self) -> "_Child | None":
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
        return None


@dataclass(slots=True)
class _Work:
    """When a process worked on a call, by the monotonic clock; both 0 if none did."""

    began: float = 0.0
    ended: float = 0.0


class _Child:
    """One process, which answers one request at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> "_Child":
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "octollm.isolation.child")
        # A session of its own: Ctrl-C in a terminal is for this process, which drains.
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, start_new_session=True))

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ask(self, request: bytes) -> bytes:
        """Send a request and return the reply. Raises OSError or EOFError if the process has ended."""
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None and replies is not None  # noqa: S101, PT018  both are pipes
        requests.write(HEADER.pack(len(request)) + request)
        await requests.drain()
        (length,) = HEADER.unpack(await replies.readexactly(HEADER.size))
        return await replies.readexactly(length)

    async def end(self) -> None:
        """Kill the process, and wait until it is gone: a killed process does not delay that."""
        if self.alive:
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
