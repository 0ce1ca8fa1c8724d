"""Postgres that dies, restarts again and again, is cut off in the middle of a commit, or has no connection left."""

import asyncio

import asyncpg

from tests.faults.proxy import COMMIT, STORES, Trap
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario

_FEWEST, _ROUNDS = 20, 100
_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@scenario("postgres_killed")
async def postgres_killed(ring: Ring) -> Landed:
    """An immediate end and recovery from the log."""
    await ring.stage.kill_postgres()
    await asyncio.sleep(ring.rng.uniform(0.5, 1.5))
    await ring.stage.restart_postgres()
    return Landed("ended at once and started again")


@scenario("postgres_restart_storm")
async def postgres_restart_storm(ring: Ring) -> Landed:
    """Down and up three times, with hardly time to connect."""
    for _ in range(3):
        await ring.stage.kill_postgres()
        await asyncio.sleep(ring.rng.uniform(0.1, 0.5))
        await ring.stage.restart_postgres()
        await asyncio.sleep(ring.rng.uniform(0.2, 0.8))
    return Landed("restarted three times", count=3)


@scenario("commit_cut")
async def commit_cut(ring: Ring) -> Landed:
    """The connection breaks after COMMIT was sent and before it is answered: nobody knows whether it happened."""
    cut: list[str] = []
    traps = []
    for one in ring.stage.of("orchestrator"):

        def spring(one=one) -> None:
            if not cut:
                cut.append(one.name)
                one.postgres.reset()

        trap = Trap(COMMIT, "before_reply", spring, STORES)
        one.postgres.traps.append(trap)
        traps.append((one.postgres, trap))
    for _ in range(4):
        ring.load.send(ring.load.order({}))
    try:
        await ring.stage.until(lambda: cut, "a commit", TIMEOUT_S)
    finally:
        for proxy, trap in traps:
            proxy.traps.remove(trap)
    return Landed(f"the connections of {cut[0]} were cut between COMMIT and its answer")


@scenario("deadlock")
async def deadlock(ring: Ring) -> Landed:
    """Somebody locks the same rows in the opposite order: Postgres ends one of the two transactions."""
    rounds = ended = 0
    async with ring.stage.database() as connection:
        await connection.execute("SET deadlock_timeout = '50ms'")
        before = await connection.fetchval(_DEADLOCKS)
        for rounds in range(1, _ROUNDS + 1):
            for _ in range(2):
                ring.load.send(ring.load.order({"sleep_ms": 100}))
            found = await connection.fetch("SELECT id FROM tasks WHERE state = 'running' ORDER BY id DESC LIMIT 20")
            try:
                async with connection.transaction():
                    await connection.execute("SET LOCAL lock_timeout = '300ms'")
                    for row in found:
                        await connection.execute("SELECT 1 FROM tasks WHERE id = $1 FOR UPDATE", row["id"])
                        await asyncio.sleep(0.005)
            except asyncpg.DeadlockDetectedError:
                ended += 1
            except asyncpg.PostgresError:
                continue
            # One of the two was ended, this one or an orchestrator; the statistics come a second late.
            met = ended + await connection.fetchval(_DEADLOCKS) - before
            if rounds >= _FEWEST and met:
                return Landed(f"rows were locked in the opposite order {rounds} times; {met} deadlocks")
    raise MissedError(f"rows were locked in the opposite order {rounds} times, and nobody met anybody")


@scenario("max_connections")
async def max_connections(ring: Ring) -> Landed:
    """No process gets a new connection."""
    taken: list[asyncpg.Connection] = []
    assert ring.stage.postgres is not None
    full = False
    try:
        for _ in range(120):
            try:
                taken.append(await asyncpg.connect(ring.stage.postgres.dsn))
            except asyncpg.TooManyConnectionsError:
                full = True
                break
        for one in ring.stage.of("orchestrator"):
            one.postgres.reset()  # those who have one lose it
        for _ in range(4):
            ring.load.send(ring.load.order({}))
        await asyncio.sleep(2)
    finally:
        for connection in taken:
            await connection.close()
    if not full:
        raise MissedError("Postgres did not run out of connections")
    return Landed(f"{len(taken)} connections were taken")
