"""A machine of Redis that loses its power: it keeps what had been synced, and nothing else."""

import asyncio
import os
from pathlib import Path

from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.intake import answers_before_intake
from tests.faults.synced import NoWitnessError, Witness

_TRIES = 8


@scenario("power_loss_everysec")
async def power_loss_everysec(ring: Ring) -> Landed:
    """What was answered in the last second may be gone, and everything before it must heal."""
    lost = await _power_loss(ring, "everysec")
    if not lost:
        raise MissedError("everything had been synced whenever the power went")
    return Landed(f"{lost} bytes of the append-only file had not been synced (everysec)", loss="redis")


@scenario("power_loss_always")
async def power_loss_always(ring: Ring) -> Landed:
    """Every write is synced before its answer: nothing that was confirmed may be gone."""
    lost = await _power_loss(ring, "always")
    return Landed(
        f"{lost} bytes of the append-only file had not been synced, and none of them had been confirmed (always)"
    )


async def _power_loss(ring: Ring, appendfsync: str) -> int:
    """Kill Redis and cut its file back to what it had synced; how many bytes that took."""
    stage = ring.stage
    try:
        witness = await asyncio.to_thread(Witness.build, stage.folder / "witness")
    except NoWitnessError as error:
        raise MissedError(str(error)) from error
    await stage.stop_redis()  # in order: all that is there is synced
    aof = _incremental(stage.redis_dir)
    before = aof.stat().st_size
    stage.redis_environment = witness.environment
    lost = 0
    try:
        for _ in range(_TRIES):
            await stage.start_redis("--appendfsync", appendfsync)
            async with answers_before_intake(ring):
                # Who has seen no sync at all is perhaps not there.
                await stage.until(witness.seen, "a sync that the witness saw", TIMEOUT_S)
                await stage.kill_redis()
            lost = witness.behind(aof, before)
            before = witness.length(aof, before)
            os.truncate(aof, before)
            if lost or appendfsync == "always":
                break
    finally:
        stage.redis_environment = {}
        await stage.kill_redis()
        await stage.start_redis()
    return lost


def _incremental(folder: Path) -> Path:
    """The file that Redis appends to."""
    files = sorted((folder / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise MissedError("Redis has no append-only file")
    return files[-1]
