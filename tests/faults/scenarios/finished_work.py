"""Redis that fills up with what only describes finished tasks, and logs that nobody reads."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from octollm.contracts.ids import lane_of
from octollm.topology import LaneKeys
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.helpers import end_within, send

_TASKS = 12
_FILLER = b"x" * 1_000_000
_EVICTED_WITHIN_S = 20.0
_OLD_ENOUGH = (
    "SELECT count(*) FROM tasks WHERE idempotency_key = ANY ($1::text[]) AND finished_at < now() - interval '11 s'"
)


@scenario("redis_full_of_finished_work")
async def redis_full_of_finished_work(ring: Ring) -> Landed:
    """Only statuses of finished tasks fill Redis: they leave, and new tasks are accepted; running ones keep theirs."""
    stage, load = ring.stage, ring.load
    finished = [load.order({}, source="http0", kind="ledger") for _ in range(_TASKS)]
    send(ring, finished)
    keys = [order.key for order in finished]

    async def old_enough() -> bool:
        return bool(await stage.value(_OLD_ENOUGH, keys) == _TASKS)

    await stage.until(old_enough, "tasks that have ended for a while", TIMEOUT_S)
    tasks = await stage.value("SELECT array_agg(id) FROM tasks WHERE idempotency_key = ANY ($1::text[])", keys)
    statuses = [LaneKeys(lane_of(task)).status(task) for task in tasks]
    async with stage.client() as client:
        for status in statuses:
            await client.hset(status, "filler", _FILLER)
        used = int((await client.info("memory"))["used_memory"])
        # Below what is used, also after the buffers of these commands are freed, and far above what is live.
        await client.config_set("maxmemory", int(used * 0.7))
    try:
        new = load.order({}, source="http0", kind="ledger")
        load.send(new)

        broken: tuple[str, ...] = ()
        if not await end_within(ring, [new], _EVICTED_WITHIN_S):
            broken = ("a task was refused although only finished work filled Redis",)
    finally:
        async with stage.client() as client:
            await client.config_set("maxmemory", 0)
            left = await client.exists(*statuses)
            await client.delete(*statuses)
    return Landed(f"{_TASKS - left} of {_TASKS} large statuses left early", excuses=("evicted",), broken=broken)


@scenario("log_not_read")
async def log_not_read(ring: Ring) -> Landed:
    """The reader of the orchestrators' logs stands still while they have much to say: work goes on without its log."""
    stage = ring.stage
    orchestrators = stage.of("orchestrator")
    with contextlib.ExitStack() as pipes:
        for one in orchestrators:
            pipes.enter_context(_full_pipe(one.logs / f"{one.name}.log"))
            starts = one.starts
            if one.child is None:
                raise MissedError(f"{one.name} does not run")
            await one.child.stop()
            await stage.again(one, starts)
        await stage.kill_redis()
        await stage.start_redis()
        order = ring.load.order({}, source="http0", kind="ledger")
        ring.load.send(order)
        broken: tuple[str, ...] = ()
        if not await end_within(ring, [order], _EVICTED_WITHIN_S):
            broken = ("a task waited for a log that nobody read",)
    for one in orchestrators:
        starts = one.starts
        if one.child is not None:
            await one.child.stop()
        await stage.again(one, starts)
    return Landed(f"nobody read the logs of {len(orchestrators)} orchestrators", broken=broken)


@contextlib.contextmanager
def _full_pipe(log: Path) -> Iterator[None]:
    """Put a pipe in the place of a log file, full and with a reader that reads nothing."""
    kept = log.with_suffix(".kept")
    log.rename(kept)
    os.mkfifo(log)
    pipe = os.open(log, os.O_RDWR | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while os.write(pipe, b"x" * 4096):
                pass
        yield
    finally:
        os.close(pipe)
        kept.replace(log)
