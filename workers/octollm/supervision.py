"""Owns every background task and thread of a process, and notices an unexpected end.

A process whose heartbeat or commit loop has died keeps its leases and finishes nothing. So the loops and threads of a
worker run under a supervisor; ruff forbids `asyncio.create_task` and `threading.Thread` elsewhere, unless a comment
says who waits for the task. When owned work ends without an order to stop, the supervisor records it (readiness turns
red), logs the cause, and `until_failed` raises, so that the process exits.
"""

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import structlog

from octollm.errors import WorkerError

_CANCEL_AGAIN_S = 0.1
_STOP_S = 5.0
_log = structlog.get_logger(__name__)
Result = TypeVar("Result")


def exit_if_stuck() -> None:
    """End the process at once if other tasks ignore their cancellation.

    asyncio would wait for them for ever.

    Call it last in a program's main coroutine, in a `finally`: what the coroutine raises is logged with the tasks.
    """
    stuck = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if stuck:
        raised = sys.exception()
        error = None if raised is None else str(raised) or type(raised).__name__
        _log.error("tasks ignore their cancellation; the process ends without them", tasks=stuck, error=error)
        os._exit(1)


class SupervisedThread:
    """A daemon thread that has to run until `expect_end` was called."""

    def __init__(
        self, name: str, target: Callable[[], None], ended: Callable[[str, BaseException | None], None]
    ) -> None:
        """Start it. `ended` is called on the thread when the target ends unexpectedly, with what it raised."""
        self._name = name
        self._target = target
        self._ended = ended
        self._end_expected = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)  # noqa: TID251  owned here
        self._thread.start()

    def expect_end(self) -> None:
        """Call before telling the target to end; its end is then no failure."""
        self._end_expected = True

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the end of the thread, at most `timeout_s` seconds. Blocks."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._target()
        except BaseException as raised:  # noqa: BLE001  reported below; a thread has nowhere to raise to
            error = raised
        if not self._end_expected:
            self._ended(self._name, error)


class Supervisor:
    """The owner of all background work of one process, on one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._expected: set[asyncio.Task[Any]] = set()
        """Tasks that were ordered to end."""
        self._failure: tuple[str, BaseException | None] | None = None
        self._failed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def failure(self) -> str | None:
        """What ended unexpectedly first, as a sentence; None while all is well. Any thread may ask."""
        if self._failure is None:
            return None
        name, error = self._failure
        return f"background work '{name}' ended unexpectedly ({error!r})"

    def spawn_loop(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that must run until `end` is called with it; its return is a failure, too."""
        return self._spawn(name, work, may_return=False)

    def spawn_task(self, name: str, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Start a task that may return; an exception that it raises is a failure."""
        return self._spawn(name, work, may_return=True)

    def spawn_thread(self, name: str, target: Callable[[], None]) -> SupervisedThread:
        """Start a daemon thread that must run until its `expect_end` was called."""
        return SupervisedThread(name, target, self.report)

    def report(self, name: str, error: BaseException | None) -> None:
        """Record that something this process depends on has failed. Any thread may call it.

        For code whose task belongs to a library that swallows exceptions. Only the first failure is kept.
        """
        if self._failure is not None:
            return
        self._failure = (name, error)
        _log.error("background work ended unexpectedly; this process exits", work=name, exc_info=error)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._failed.set)

    async def until_failed(self) -> None:
        """Wait until owned work ends unexpectedly, then raise WorkerError with its error as cause."""
        self._loop = asyncio.get_running_loop()
        if self._failure is None:
            await self._failed.wait()
        raise WorkerError(f"{self.failure}; restart this process") from (self._failure or ("", None))[1]

    async def run_until(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set. Raises WorkerError as soon as owned work ends unexpectedly."""
        waits = self.spawn_task("stop", stop.wait()), asyncio.get_running_loop().create_task(self.until_failed())
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if waits[1].done():
                waits[1].result()
        finally:
            await self.end(waits)

    async def finish(self, work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
        """Await `work`; whether it has returned before `stop` was set.

        Otherwise it is cancelled and may clean up for `_STOP_S`. Raises what it raises, and WorkerError as soon as
        owned work ends unexpectedly; but True if it has returned in spite of that: then the caller has
        to undo it.
        """
        create = asyncio.get_running_loop().create_task
        working, stopping, failing = create(work), create(stop.wait()), create(self.until_failed())
        try:
            await asyncio.wait((working, stopping, failing), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                working.cancel()
                await asyncio.wait((working,), timeout=_STOP_S)
        finally:
            await self.end((working, stopping, failing))
        failure = failing.exception() if failing.done() and not failing.cancelled() else None
        if working.done() and not working.cancelled():
            working.result()
            return True
        if failure is not None:
            raise failure
        return False

    async def end(self, tasks: Iterable[asyncio.Task[Any]], timeout_s: float = math.inf) -> None:
        """Cancel tasks of this supervisor until all have ended, for at most `timeout_s`.

        Ignores what they raise.

        Cancels more than once: redis-py can swallow a cancellation that arrives while it connects.
        """
        pending = {task for task in tasks if not task.done()}
        self._expected |= pending
        until = time.monotonic() + timeout_s
        while pending and time.monotonic() < until:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)

    async def stop(self) -> None:
        """End every task that is still owned and heeds its cancellation.

        The code that spawned a thread ends it.
        """
        await self.end(list(self._tasks), _STOP_S)

    def _spawn(self, name: str, work: Coroutine[Any, Any, Result], *, may_return: bool) -> asyncio.Task[Result]:
        self._loop = asyncio.get_running_loop()
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)

        def ended(task: asyncio.Task[Result]) -> None:
            self._tasks.discard(task)
            expected = task in self._expected
            self._expected.discard(task)
            error = None if task.cancelled() else task.exception()
            if not expected and not (may_return and error is None):
                self.report(name, error)

        task.add_done_callback(ended)
        return task
