"""Full stores, and a vector store that is unavailable: only the work that needs them waits."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.exceptions import RedisError

from octollm.errors import StartError
from tests.faults.disks import NoDiskError, small_disk
from tests.faults.load import Order
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.helpers import end_within, until_ended

_FULL_S = 2.0
_RESULTS = "{l0}:results"


def _refuses_writes(ring: Ring) -> Callable[[], Awaitable[bool]]:
    """Return what asks whether Redis could not write to its disk."""

    async def refuses() -> bool:
        async with ring.stage.client() as client:
            try:
                return str((await client.info("persistence"))["aof_last_write_status"]) == "err"
            except RedisError:
                return False

    return refuses


@scenario("redis_disk_full")
async def redis_disk_full(ring: Ring) -> Landed:
    """The append-only file cannot grow: Redis refuses every write until there is space, and keeps what it accepted."""
    stage = ring.stage
    before = ring.load.retry_after

    try:
        async with small_disk(stage.redis_dir, stage.stop_redis, stage.start_redis) as disk:
            await _wait_for_work(ring)
            disk.fill()
            for source in ("http0", "http1", "http0", "http1"):
                ring.load.send(ring.load.order({}, source=source))
            await stage.until(_refuses_writes(ring), "a write that Redis could not make", TIMEOUT_S)
            await stage.until(lambda: ring.load.retry_after > before, "a 503", TIMEOUT_S)
            await asyncio.sleep(_FULL_S)
    except NoDiskError as error:
        raise MissedError(str(error)) from error
    refused = ring.load.retry_after - before
    return Landed(f"the disk of Redis was full; {refused} submissions were asked to come back later")


@scenario("start_on_full_disk")
async def start_on_full_disk(ring: Ring) -> Landed:
    """One process of each kind starts while the disk of Redis is full: it waits without ending, and then works."""
    stage = ring.stage
    started = [stage.of(role)[0] for role in ("orchestrator", "judge", "executor")]
    logs = [one.logs / f"{one.name}.log" for one in started]
    try:
        async with small_disk(stage.redis_dir, stage.stop_redis, stage.start_redis) as disk:
            await _wait_for_work(ring)
            disk.fill()
            ring.load.send(ring.load.order({}))
            await stage.until(_refuses_writes(ring), "a write that Redis could not make", TIMEOUT_S)
            starts, sizes = [one.starts for one in started], [log.stat().st_size for log in logs]
            for one in started:
                one.kill()

            def all_wait() -> bool:
                said = zip(logs, sizes, strict=True)
                return all(b"consumer groups" in log.read_bytes()[size:] for log, size in said)

            await stage.until(all_wait, "processes that wait for the disk", TIMEOUT_S)
            await asyncio.sleep(_FULL_S)
            ends = sum(one.starts - before - 1 for one, before in zip(started, starts, strict=True))
    except NoDiskError as error:
        raise MissedError(str(error)) from error
    for one, before in zip(started, starts, strict=True):
        await stage.again(one, before)
    broken = (f"processes that started on a full disk ended {ends} times",) if ends else ()
    return Landed("three processes started while the disk of Redis was full", count=3, broken=broken)


@scenario("postgres_disk_full")
async def postgres_disk_full(ring: Ring) -> Landed:
    """No table can grow: every transaction that writes fails until there is space, and no task fails for it."""
    stage = ring.stage
    data = stage.folder / "postgres" / "pgdata"
    log = stage.folder / "postgres" / "postgres.log"
    said = _complaints(log)

    try:
        async with small_disk(data, stage.kill_postgres, stage.restart_postgres) as disk:
            await _wait_for_work(ring)
            disk.fill()
            for _ in range(8):
                ring.load.send(ring.load.order({}))
            await stage.until(lambda: _complaints(log) > said, "a write that Postgres could not make", TIMEOUT_S)
            await asyncio.sleep(_FULL_S)
            disk.empty()
            await _wait_for_work(ring)
    except NoDiskError as error:
        raise MissedError(str(error)) from error
    return Landed(f"the disk of Postgres was full; it said so {_complaints(log) - said} times")


def _complaints(log: Path) -> int:
    return log.read_text(errors="replace").count("No space left on device")


async def _wait_for_work(ring: Ring) -> None:
    """Until a task that is sent now has ended: everybody is back."""
    await until_ended(ring, [_sent(ring, "ledger")])


@scenario("qdrant_unavailable")
async def qdrant_unavailable(ring: Ring) -> Landed:
    """The vector store refuses, then hangs: results are there all the same, and memory makes up for it afterwards."""
    stage = ring.stage
    server, way = await stage.give_vectors()
    kept = [_sent(ring, "kept") for _ in range(3)]
    await until_ended(ring, kept)
    broken: list[str] = []
    for away in ("refused", "hung"):
        way.refuses = away == "refused"
        if away == "hung":
            way.hold()
        way.reset()
        now = [_sent(ring, "kept") for _ in range(3)]
        kept += now
        if not await end_within(ring, now):
            broken.append(f"a result waited for a vector store that {away}")
        async with stage.client() as client:
            if not await client.xlen(_RESULTS):
                raise MissedError(f"nothing waited for the vector store that {away}")
        way.refuses = False
        way.reset()
        way.release()

    async def indexed() -> bool:
        known = server.documents()
        tasks = await stage.value(
            "SELECT array_agg(id) FROM tasks WHERE idempotency_key = ANY ($1::text[]) "
            "AND reason IS DISTINCT FROM 'duplicate'",
            [order.key for order in kept],
        )
        return len(tasks or ()) == len(kept) and all(known.get(task) == 1 for task in tasks)

    try:
        await stage.until(indexed, "the vectors", TIMEOUT_S)
    except StartError:
        broken.append(f"not every task kept has its vector once: {sorted(server.documents().values())}")
    return Landed("the vector store refused, then hung", count=2, broken=tuple(broken))


def _sent(ring: Ring, kind: str) -> Order:
    order = ring.load.order(kind=kind, source="http0")
    ring.load.send(order)
    return order
