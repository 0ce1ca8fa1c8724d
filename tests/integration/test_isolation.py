"""Processes for untrusted content: one that hangs, dies or takes too much memory affects its own call only."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

from octollm.arms.base import ArmContext
from octollm.arms.coder import Coder
from octollm.arms.guardian import Guardian
from octollm.arms.judge import Judge
from octollm.contracts import StepRequested
from octollm.errors import PermanentError, TransientError
from octollm.isolation.pool import ProcessPool
from octollm.resources import rules_path
from octollm.steps.timeout import TimeLimitError, run_with_timeout
from tests.helpers.waiting import until

FOLDED = "a=1\nx=f'" + "{a}" * 60_000 + "'\n"
"""Takes the compiler seconds."""


@pytest.fixture
async def pool():
    one = ProcessPool()
    yield one
    await one.close()


def forever(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        pass


def own_pid() -> int:
    os.write(1, b"not a reply")
    return os.getpid()


def refuse() -> None:
    raise PermanentError("no_good", "it is no good")


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def fill() -> int:
    return len(bytearray(4 << 30))


def recurse() -> None:
    recurse()


def unavailable() -> None:
    raise BlockingIOError(11, "Resource temporarily unavailable")


async def test_a_call_that_is_cancelled_ends_its_process_and_no_other(pool, tmp_path):
    hanging = asyncio.ensure_future(run_with_timeout(600, pool.run(forever, str(tmp_path / "pid"))))

    async def begun():
        return (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()

    await until(begun)
    first = await pool.run(own_pid)
    assert await pool.run(own_pid) == first  # a process is used again
    with pytest.raises(TimeLimitError):
        await run_with_timeout(0.1, pool.run(forever, str(tmp_path / "other")))
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging

    async def gone():
        return not psutil.pid_exists(int((tmp_path / "pid").read_text()))

    await until(gone)
    assert await pool.run(own_pid)


async def test_each_end_of_a_call_has_its_error(pool):
    with pytest.raises(PermanentError, match="it is no good"):
        await pool.run(refuse)
    with pytest.raises(PermanentError, match="the arm broke: RecursionError"):
        await pool.run(recurse)
    with pytest.raises(TransientError, match="the arm broke: BlockingIOError"):
        await pool.run(unavailable)
    with pytest.raises(PermanentError) as caught:
        await pool.run(fill)
    assert caught.value.code == "out_of_memory"
    with pytest.raises(TransientError) as ended:
        await pool.run(die)
    assert ended.value.code == "process_ended"
    assert await pool.run(own_pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_process_ends_with_its_parent(tmp_path):
    program = (
        "import asyncio, sys\n"
        "from octollm.isolation.pool import ProcessPool\n"
        "from tests.integration.test_isolation import forever\n"
        "asyncio.run(ProcessPool().run(forever, sys.argv[1]))\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path / "pid"))

    async def begun():
        return (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()

    await until(begun)
    parent.kill()
    await parent.wait()

    async def gone():
        return not psutil.pid_exists(int((tmp_path / "pid").read_text()))

    await until(gone)


def a_step(**given: Any) -> StepRequested:
    named: dict[str, Any] = {"task": "l0-01jd0000000000000000000000", "run": 1, "step": "s", "round": 0, "attempt": 1}
    return StepRequested(**named, tenant="default", arm="any", priority="normal", failures=0, timeout_s=60, input=given)


def _nested_schema() -> dict[str, Any]:
    """Valid, small, and checked in two to the power of forty."""
    names = [f"d{number}" for number in range(40)]
    parts = {one: {"allOf": [{"$ref": f"#/$defs/{then}"}] * 2} for one, then in itertools.pairwise(names)}
    return {"$ref": "#/$defs/d0", "$defs": {**parts, names[-1]: {"type": "integer"}}}


@pytest.mark.parametrize(
    ("arm", "given"),
    [
        (Coder(), {"mode": "check", "language": "python", "files": {"a.py": FOLDED, "b.py": FOLDED}}),
        (Judge(), {"checks": [{"check": "schema", "value": 1, "schema": _nested_schema()}]}),
        (Guardian(), {"mode": "redact", "value": "a.b@" * 400_000}),
    ],
    ids=["coder", "judge", "guardian"],
)
async def test_an_arm_that_works_long_on_its_input_does_not_hold_up_the_event_loop(pool, arm, given):
    context = ArmContext(structlog.get_logger(), "w", rules_path(), isolation=pool)
    working = asyncio.ensure_future(run_with_timeout(3, arm.handle(a_step(**given), context)))
    longest = 0.0
    while not working.done():
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    with contextlib.suppress(TimeLimitError):
        working.result()
    assert longest < 1
