"""Processes for untrusted content: one that hangs, dies or takes too much memory affects its own call only."""

import asyncio
import contextlib
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Coroutine
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
from octollm.isolation.pool import MAX_PROCESSES, CallTimeoutError, ProcessPool
from octollm.isolation.step import StepIsolation
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


async def test_the_content_of_one_tenant_leaves_processes_to_the_others(pool, tmp_path):
    hostile = [
        asyncio.ensure_future(pool.run(forever, str(tmp_path / f"{tenant}{number}"), tenant=tenant))
        for tenant in ("one", "two")
        for number in range(3 * MAX_PROCESSES)
    ]

    def begun(tenant: str) -> int:
        return len(list(tmp_path.glob(f"{tenant}*")))

    async def all_shares_used():
        return begun("one") == MAX_PROCESSES // 2 and begun("two") == MAX_PROCESSES // 4

    await until(all_shares_used)
    for tenant in ("three", "four", "three"):
        assert await pool.run(own_pid, tenant=tenant)
    assert (begun("one"), begun("two")) == (MAX_PROCESSES // 2, MAX_PROCESSES // 4)
    for one in hostile:
        one.cancel()
    await asyncio.gather(*hostile, return_exceptions=True)
    assert await asyncio.gather(*(pool.run(own_pid, tenant="one") for _ in range(MAX_PROCESSES)))


async def test_a_call_says_whether_it_was_worked_on_or_waited_for_a_process(pool, tmp_path):
    hostile = [
        asyncio.ensure_future(pool.run(forever, str(tmp_path / str(number)), tenant="one"))
        for number in range(MAX_PROCESSES // 2)
    ]

    async def all_begun():
        return len(list(tmp_path.iterdir())) == len(hostile)

    await until(all_begun)
    with pytest.raises(CallTimeoutError, match="no process was free") as waited:
        await pool.run(own_pid, tenant="one", limit_s=0.2)
    assert waited.value.worked_s == 0
    # The step was not at fault, however often it failed before.
    with pytest.raises(TransientError, match="no process was free"):
        await StepIsolation(pool, "one", 0.3, failures=3).run(own_pid)
    with pytest.raises(CallTimeoutError, match="did not end") as worked:
        await pool.run(forever, str(tmp_path / "other"), tenant="two", limit_s=3)
    assert 0 < worked.value.worked_s < 3.5
    for one in hostile:
        one.cancel()
    await asyncio.gather(*hostile, return_exceptions=True)


def a_step(**given: Any) -> StepRequested:
    named: dict[str, Any] = {"task": "l0-01jd0000000000000000000000", "run": 1, "step": "s", "round": 0, "attempt": 1}
    return StepRequested(**named, tenant="default", arm="any", priority="normal", failures=0, timeout_s=60, input=given)


def _nested_schema() -> dict[str, Any]:
    """Valid, small, and checked in two to the power of forty."""
    names = [f"d{number}" for number in range(40)]
    parts = {one: {"allOf": [{"$ref": f"#/$defs/{then}"}] * 2} for one, then in itertools.pairwise(names)}
    return {"$ref": "#/$defs/d0", "$defs": {**parts, names[-1]: {"type": "integer"}}}


ENDLESS = [
    (Coder(), {"mode": "check", "language": "python", "files": {"a.py": FOLDED, "b.py": FOLDED}}),
    (Judge(), {"checks": [{"check": "schema", "value": 1, "schema": _nested_schema()}]}),
    (Judge(), {"checks": [{"check": "matches", "text": "a" * 2_000_000, "pattern": "(a?){900}b"}]}),
]


@pytest.mark.parametrize(("arm", "given"), ENDLESS, ids=["code", "schema", "pattern"])
async def test_content_that_does_not_end_is_tried_twice(pool, arm, given):
    def attempt(failures: int) -> Coroutine[Any, Any, dict[str, Any]]:
        isolation = StepIsolation(pool, "default", 2.0, failures)
        return arm.handle(a_step(**given), ArmContext(structlog.get_logger(), "w", rules_path(), isolation=isolation))

    await asyncio.gather(*(pool.run(own_pid) for _ in range(2)))  # processes that have started
    with pytest.raises(TransientError) as first:
        await attempt(0)
    with pytest.raises(PermanentError) as second:
        await attempt(1)
    assert first.value.code == second.value.code == "timeout"
    assert re.search("did not end.*twice", second.value.message)


async def test_content_that_ends_its_process_is_tried_twice(pool):
    with pytest.raises(TransientError) as first:
        await StepIsolation(pool, "default", 60, failures=0).run(die)
    with pytest.raises(PermanentError, match="twice") as second:
        await StepIsolation(pool, "default", 60, failures=1).run(die)
    assert first.value.code == second.value.code == "process_ended"


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
