"""Clocks of processes that are wrong. Only the stores' clocks decide anything."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg

from octollm.errors import StartError
from tests.faults.instance import Instance
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario

_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)
_DEADLINE_S = 600
"""Far longer than a task takes, and shorter than the clocks are off."""
_TIMES = """
SELECT idempotency_key, extract(epoch FROM clock_timestamp() - received_at)::float8 AS age_s,
       extract(epoch FROM deadline_at - received_at)::float8 AS deadline_s
FROM tasks WHERE idempotency_key = ANY ($1::text[])
"""


@scenario("clock_ahead")
async def clock_ahead(ring: Ring) -> Landed:
    """An orchestrator and an arm whose clocks are an hour ahead: tasks with half an hour to go do not expire."""
    async with _clocks(ring, [(ring.stage.of(role)[0], "+1h") for role in ("orchestrator", "effect")]):
        for _ in range(12):
            ring.load.send(ring.load.order({"sleep_ms": 500}, source="http0", kind="ledger", deadline_s=1800))
        await asyncio.sleep(4)
    return Landed("an orchestrator and an arm an hour ahead")


@scenario("clock_jump")
async def clock_jump(ring: Ring) -> Landed:
    """An arm whose clock is an hour ahead and an orchestrator whose clock is an hour behind."""
    async with _clocks(ring, [(ring.stage.of("effect")[0], "+1h"), (ring.stage.of("orchestrator")[0], "-1h")]):
        for _ in range(6):
            ring.load.send(ring.load.order({}))
        await asyncio.sleep(2)
    return Landed("an arm an hour ahead, an orchestrator an hour behind")


@scenario("clocks_of_reflexes")
async def clocks_of_reflexes(ring: Ring) -> Landed:
    """A reflex an hour ahead and one an hour behind: no task expires, and no deadline is shorter or longer."""
    load = ring.load
    ahead, behind = ring.stage.of("reflex")
    async with _clocks(ring, [(ahead, "+1h"), (behind, "-1h")]):
        orders = [
            load.order({}, source=source, kind="ledger", deadline_s=_DEADLINE_S)
            for source in ("http0", "http1", "stream")
            for _ in range(4)
        ]
        for order in orders:
            load.send(order)
        keys = [order.key for order in orders]
        times: list[asyncpg.Record] = []

        async def all_stored() -> bool:
            async with ring.stage.database() as connection:
                times[:] = await connection.fetch(_TIMES, keys)
            return len(times) == len(keys)

        try:
            await ring.stage.until(all_stored, f"{len(keys)} tasks", TIMEOUT_S)
        except StartError as error:
            raise MissedError(str(error)) from error
    broken = [
        f"{one['idempotency_key']} was received {one['age_s']:.0f} s ago and has {one['deadline_s']:.0f} s"
        for one in times
        if not -1 < one["age_s"] < TIMEOUT_S or one["deadline_s"] != _DEADLINE_S
    ]
    return Landed("a reflex an hour ahead, one an hour behind", count=2, broken=tuple(broken))


@contextlib.asynccontextmanager
async def _clocks(ring: Ring, offsets: Sequence[tuple[Instance, str]]) -> AsyncIterator[None]:
    """Restart processes with clocks that are off, and afterwards with the right ones.

    `offsets`: such as `+1h`. Raises MissedError if a process has the right time all the same.
    """
    library = _faketime()
    try:
        for one, offset in offsets:
            await _restart(ring, one, {"LD_PRELOAD": library, "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"})
            if one.child is None or "libfaketime" not in Path(f"/proc/{one.child.pid}/maps").read_text():  # noqa: ASYNC240  read at once, not awaited for
                raise MissedError(f"{one.name} has its clock all the same")
        yield
    finally:
        for one, _ in offsets:
            await _restart(ring, one, {})


async def _restart(ring: Ring, one: Instance, environment: dict[str, str]) -> None:
    starts, one.environment = one.starts, environment
    one.kill(signal.SIGTERM)
    await ring.stage.again(one, starts)


def _faketime() -> str:
    """Return the path of the library that changes a process' clock. Raises MissedError if there is none."""
    found = next((path for path in _LIBRARIES if Path(path).exists()), None)
    if found is None:
        raise MissedError("libfaketime is not installed (apt-get install faketime)")
    return found
