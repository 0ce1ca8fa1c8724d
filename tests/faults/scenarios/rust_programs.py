"""The two Rust programs under an operator's hands: deploys that cut long steps, and log pipes that nobody reads."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.instance import Instance
from tests.faults.load import Order
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.helpers import alone, end_within, redeployed, restart, send

_DEPLOYS = 6
"""More than any arm's max_deliveries: a step that each one charged would be given up on."""
_STEP_MS = 8000
_STREAMS = [f"{{l0}}:arm.executor:{priority}" for priority in ("high", "normal", "low")]
_TASK = "SELECT id FROM tasks WHERE idempotency_key = $1"
_PIPE_BYTES = 4096
_STEPS = 24
_EXIT_S = 30.0
"""How long SIGTERM may take with nothing to wait for, on a busy machine."""


@scenario("restart_executor_in_long_step")
async def restart_executor_in_long_step(ring: Ring) -> Landed:
    """Deploy after deploy ends the executors in the middle of a step, which resumes uncharged."""
    executors = ring.stage.of("executor")
    order = ring.load.order({"sleep_ms": _STEP_MS}, kind="sandbox", source="http0")
    broken: set[str] = set()
    async with redeployed(ring, [(one, {"OCTOLLM_EXECUTOR_DRAIN_S": "1"}) for one in executors]):
        ring.load.send(order)
        for _ in range(_DEPLOYS):
            if await _until_held(ring, order) > 1:
                broken.add("a deploy charged the step that it stopped")
            await asyncio.gather(*(restart(ring, one) for one in executors))
    return Landed(f"{_DEPLOYS} deploys stopped one step", count=_DEPLOYS, broken=tuple(broken))


async def _until_held(ring: Ring, order: Order) -> int:
    """Wait until an executor runs the order's step; how often it was delivered."""
    found: list[int] = []

    async def held() -> bool:
        task = await ring.stage.value(_TASK, order.key)
        async with ring.stage.client() as client:
            for stream in _STREAMS if task else ():
                for one in await client.xpending_range(stream, "executor", "-", "+", 100):
                    (entry,) = await client.xrange(stream, one["message_id"], one["message_id"]) or [(b"", {})]
                    if one["consumer"] != b"released" and entry[1].get(b"id", b"").startswith(task.encode() + b"."):
                        found.append(int(one["times_delivered"]))
        return bool(found)

    await ring.stage.until(held, "a long step in the sandbox", TIMEOUT_S)
    return found[-1]


@dataclass
class _Pipe:
    """What a process logs into, and where it is kept for the ledger."""

    reader: int
    log: Path

    def read(self) -> int:
        """Move what is in the pipe to the log; how much that was."""
        moved = 0
        with self.log.open("ab") as log, contextlib.suppress(BlockingIOError):
            while data := os.read(self.reader, 65536):
                log.write(data)
                moved += len(data)
        return moved

    def close(self) -> None:
        """Leave the writer without a reader. May be called again."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


@contextlib.asynccontextmanager
async def _logging_into_pipe(ring: Ring, one: Instance, environment: dict[str, str]) -> AsyncIterator[_Pipe]:
    """Restart the process with a small pipe instead of its log file; afterwards with the file again."""
    log = one.logs / f"{one.name}.log"
    kept = log.with_suffix(".kept")
    log.rename(kept)
    os.mkfifo(log)
    pipe = _Pipe(os.open(log, os.O_RDONLY | os.O_NONBLOCK), kept)
    try:
        fcntl.fcntl(pipe.reader, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        await restart(ring, one, environment)
        yield pipe
    finally:
        log.unlink()
        kept.rename(log)
        pipe.close()
        one.environment = {}


@scenario("log_reader_of_executor_stops")
async def log_reader_of_executor_stops(ring: Ring) -> Landed:
    """The executor's log pipe is full and stays full: steps run on. Then its reader dies, and SIGTERM still works."""
    one = ring.stage.of("executor")[0]
    async with alone(ring, one):
        return await _log_reader_stops(ring, one, {}, kind="sandbox", source="http0")


@scenario("log_reader_of_reflex_stops")
async def log_reader_of_reflex_stops(ring: Ring) -> Landed:
    """The same for a reflex: submissions are answered."""
    one = ring.stage.of("reflex")[1]
    return await _log_reader_stops(ring, one, {"OCTOLLM_LOG_LEVEL": "debug"}, kind="line", source="http1")


async def _log_reader_stops(ring: Ring, one: Instance, environment: dict[str, str], kind: str, source: str) -> Landed:
    broken = []
    async with _logging_into_pipe(ring, one, environment) as pipe:
        orders = [ring.load.order({}, kind=kind, source=source) for _ in range(_STEPS)]
        send(ring, orders)
        if not await end_within(ring, orders):
            broken.append(f"{one.name} stopped working when nobody read its log")
        if not await ring.stage.ready(one):
            broken.append(f"{one.name} was not ready while nobody read its log")
        unread = pipe.read()
        starts, one.environment = one.starts, {}
        one.kill(signal.SIGTERM)
        # What it logged until now belongs to the ledger; what follows has no reader any longer.
        await asyncio.sleep(0.2)
        pipe.read()
        pipe.close()
        child = one.child
        try:
            async with asyncio.timeout(_EXIT_S):
                if child is not None:
                    await child.wait()
        except TimeoutError:
            broken.append(f"{one.name} ignored SIGTERM when its log had no reader")
            one.kill(signal.SIGKILL)
    await ring.stage.again(one, starts)
    if unread < _PIPE_BYTES // 2:
        raise MissedError(f"{one.name} logged {unread} bytes only, so its pipe was never full")
    return Landed(f"nobody read {unread} bytes of {one.name}'s log", broken=tuple(broken))
