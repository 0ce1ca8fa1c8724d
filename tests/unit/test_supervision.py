"""The supervisor notices each way in which background work can end, and lets end what was asked to."""

import asyncio
import contextlib
import subprocess
import sys
import threading

import pytest

from octollm.errors import WorkerError
from octollm.supervision import Supervisor


async def _forever() -> None:
    await asyncio.Event().wait()


async def _return() -> None:
    await asyncio.sleep(0)


async def _raise() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError("odd")


@pytest.mark.parametrize(("work", "error"), [(_return, "None"), (_raise, r"ZeroDivisionError\('odd'\)")])
async def test_a_loop_that_ends_is_a_failure(work, error):
    supervisor = Supervisor()
    supervisor.spawn_loop("renew", work())
    with pytest.raises(WorkerError, match=rf"'renew' ended unexpectedly \({error}\)"):
        async with asyncio.timeout(30):
            await supervisor.until_failed()
    assert supervisor.failure is not None


async def test_a_loop_that_somebody_else_cancelled_is_a_failure():
    supervisor = Supervisor()
    supervisor.spawn_loop("renew", _forever()).cancel()
    with pytest.raises(WorkerError, match="'renew'"):
        async with asyncio.timeout(30):
            await supervisor.until_failed()


async def test_a_task_may_return_and_must_not_raise():
    supervisor = Supervisor()
    await supervisor.spawn_task("once", _return())
    await asyncio.sleep(0)
    assert supervisor.failure is None
    supervisor.spawn_task("once", _raise())
    with pytest.raises(WorkerError, match="'once'"):
        async with asyncio.timeout(30):
            await supervisor.until_failed()


async def test_a_thread_that_ends_is_a_failure_unless_its_end_was_expected():
    supervisor = Supervisor()
    go = threading.Event()

    def wait() -> None:
        go.wait(60)

    expected = supervisor.spawn_thread("metrics", wait)
    expected.expect_end()
    go.set()
    await asyncio.to_thread(expected.join, 60)
    assert supervisor.failure is None
    supervisor.spawn_thread("leases", lambda: None)
    with pytest.raises(WorkerError, match="'leases'"):
        async with asyncio.timeout(30):
            await supervisor.until_failed()


async def test_a_requested_end_is_no_failure():
    supervisor = Supervisor()
    loop = supervisor.spawn_loop("renew", _forever())
    supervisor.spawn_loop("claim", _forever())
    await supervisor.end([loop])
    await supervisor.stop()
    await asyncio.sleep(0)
    assert loop.cancelled()
    assert supervisor.failure is None


async def test_a_swallowed_cancellation_is_sent_again():
    supervisor = Supervisor()
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    supervisor.spawn_loop("read", stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await supervisor.stop()
    assert swallowed == 2


async def test_running_ends_with_the_stop_or_with_the_first_failure():
    supervisor, stop = Supervisor(), asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    async with asyncio.timeout(30):
        await supervisor.run_until(stop)
    supervisor.report("first", ValueError("a"))
    supervisor.report("second", ValueError("b"))
    with pytest.raises(WorkerError, match="'first'") as raised:
        await supervisor.run_until(asyncio.Event())
    assert isinstance(raised.value.__cause__, ValueError)


_IGNORES = """
import asyncio

async def ignores():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""
_STUCK = f"""{_IGNORES}
from octollm.supervision import exit_if_stuck

async def main(stuck):
    tasks = [asyncio.create_task(ignores())] if stuck else []
    await asyncio.sleep(0)
    exit_if_stuck()
    return tasks

asyncio.run(main({{stuck}}))
"""
_STUCK_STACK = f"""{_IGNORES}
from octollm.cli.up import _run
from octollm.errors import StartError

class Stack:
    async def __aenter__(self):
        self.tasks = [asyncio.create_task(ignores())] if {{stuck}} else []
        await asyncio.sleep(0)
        raise StartError("the disk is full")

    async def __aexit__(self, *_error):
        pass

asyncio.run(_run(Stack(), as_json=True))
"""


@pytest.mark.parametrize(("stuck", "code"), [(True, 1), (False, 0)])
def test_a_task_that_ignores_its_cancellation_does_not_keep_the_process(stuck, code):
    ended = subprocess.run([sys.executable, "-c", _STUCK.format(stuck=stuck)], timeout=60, check=False)
    assert ended.returncode == code


@pytest.mark.parametrize("stuck", [True, False])
def test_nor_does_it_keep_a_stack_that_ended_or_hide_why(stuck):
    command = [sys.executable, "-c", _STUCK_STACK.format(stuck=stuck)]
    ended = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "the disk is full" in ended.stdout + ended.stderr


async def test_ending_a_task_that_ignores_its_cancellation_takes_no_longer_than_asked():
    supervisor, let_go = Supervisor(), asyncio.Event()

    async def ignores():
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    task = supervisor.spawn_task("ignores", ignores())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await supervisor.end([task], 0.2)
    assert not task.done()
    let_go.set()
    await task
    assert supervisor.failure is None


@pytest.mark.parametrize("ending", ["stop", "failure"])
async def test_work_that_returns_in_spite_of_its_cancellation_has_finished(ending):
    supervisor, stop = Supervisor(), asyncio.Event()

    async def stubborn():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    if ending == "stop":
        stop.set()
    else:
        supervisor.report("loop", ZeroDivisionError())
    assert await supervisor.finish(stubborn(), stop)
    await supervisor.stop()
