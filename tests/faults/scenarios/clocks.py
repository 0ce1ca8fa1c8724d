"""Clocks of processes that are wrong. Only the stores' clocks decide anything."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from tests.faults.instance import Instance
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.helpers import end_within, redeployed, send

_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
)
_DEADLINE_S = 600
"""Far longer than a task takes, and shorter than the clocks are off."""
_AHEAD_S = 60.0
"""Longest time for tasks of a few seconds while clocks are wrong, on a busy machine."""
_TIMES = """
SELECT idempotency_key, extract(epoch FROM clock_timestamp() - received_at)::float8 AS age_s,
       extract(epoch FROM deadline_at - received_at)::float8 AS deadline_s
FROM tasks WHERE idempotency_key = ANY ($1::text[])
"""


@scenario("clock_ahead")
async def clock_ahead(ring: Ring) -> Landed:
    """All that works on tasks is an hour ahead of the stores: tasks with half an hour to go end as usual."""
    changed = [one for role in ("orchestrator", "effect", "judge", "executor") for one in ring.stage.of(role)]
    async with _clocks(ring, [(one, "+1h") for one in changed]):
        orders = [
            ring.load.order({"sleep_ms": 500}, source="http0", kind=kind, deadline_s=1800)
            for kind in ("ledger", "ledger", "sandbox")
            for _ in range(6)
        ]
        send(ring, orders)
        in_time = await end_within(ring, orders, _AHEAD_S)
    broken = () if in_time else (f"tasks with half an hour to go did not end within {_AHEAD_S:.0f} s",)
    return Landed(f"{len(changed)} processes an hour ahead", count=len(changed), broken=broken)


@scenario("clock_jump")
async def clock_jump(ring: Ring) -> Landed:
    """An arm whose clock is an hour ahead and an orchestrator whose clock is an hour behind."""
    async with _clocks(ring, [(ring.stage.of("effect")[0], "+1h"), (ring.stage.of("orchestrator")[0], "-1h")]):
        send(ring, [ring.load.order({}) for _ in range(6)])
        await asyncio.sleep(2)
    return Landed("an arm an hour ahead, an orchestrator an hour behind")


@scenario("clocks_of_reflexes")
async def clocks_of_reflexes(ring: Ring) -> Landed:
    """A reflex an hour ahead and one an hour behind: no task expires, and no deadline is shorter or longer."""
    ahead, behind = ring.stage.of("reflex")
    async with _clocks(ring, [(ahead, "+1h"), (behind, "-1h")]):
        orders = [
            ring.load.order({}, source=source, kind="ledger", deadline_s=_DEADLINE_S)
            for source in ("http0", "http1", "stream")
            for _ in range(4)
        ]
        send(ring, orders)
        keys = [order.key for order in orders]
        times: list[asyncpg.Record] = []

        async def all_stored() -> bool:
            times[:] = await ring.stage.rows(_TIMES, keys)
            return len(times) == len(keys)

        await ring.stage.until(all_stored, f"{len(keys)} tasks", TIMEOUT_S)
    broken = [
        f"{one['idempotency_key']} was received {one['age_s']:.0f} s ago and has {one['deadline_s']:.0f} s"
        for one in times
        if not -1 < one["age_s"] < TIMEOUT_S or one["deadline_s"] != _DEADLINE_S
    ]
    return Landed("a reflex an hour ahead, one an hour behind", count=2, broken=tuple(broken))


@asynccontextmanager
async def _clocks(ring: Ring, offsets: Sequence[tuple[Instance, str]]) -> AsyncIterator[None]:
    """Restart processes with clocks that are off, and afterwards with the right ones.

    `offsets`: such as `+1h`. Raises MissedError if a process has the right time all the same.
    """
    library = _faketime()
    changes = [
        (one, {"LD_PRELOAD": library, "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}) for one, offset in offsets
    ]
    async with redeployed(ring, changes):
        for one, _ in offsets:
            if not _has_loaded(one, "libfaketime"):
                raise MissedError(f"{one.name} has the right time all the same")
        yield


def _has_loaded(one: Instance, library: str) -> bool:
    return one.child is not None and library in Path(f"/proc/{one.child.pid}/maps").read_text()


def _faketime() -> str:
    """Return the path of the library that changes a process' clock. Raises MissedError if there is none."""
    found = next((path for path in _LIBRARIES if Path(path).exists()), None)
    if found is None:
        raise MissedError("libfaketime is not installed (apt-get install faketime)")
    return found
