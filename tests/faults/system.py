"""Reads what the system itself knows, straight from its stores, and waits until it has nothing left to do."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
from redis.exceptions import RedisError, ResponseError

from octollm.contracts.ids import lane_of
from octollm.topology import LaneKeys, load_topology
from tests.faults.ledger import System, now
from tests.faults.stage import Stage

_TASKS = """
SELECT id, tenant, state, reason, detail, run, idempotency_key, result->'answer' AS answer,
       extract(epoch FROM received_at) AS received_at
FROM tasks
"""
_FINISHED = "SELECT task, run, count(*) AS n FROM events WHERE body->>'event' = 'finished' GROUP BY task, run"
_ENDS = """
SELECT task, run, extract(epoch FROM min(at))::float8 AS at
FROM events WHERE body->>'event' = 'finished' GROUP BY task, run
"""
_ATTEMPTS = "SELECT task, run, step, round, attempt, delivery, outcome, worker FROM attempts"
_STEPS = "SELECT task, run, step, round, attempt, state, output->>'mark' AS mark FROM steps"
_DEAD_LETTERS = "SELECT reason, task, body->>'stream' AS stream, body->>'entry' AS entry FROM dead_letters"
_OPEN = "SELECT count(*) FROM tasks WHERE state IN ('accepted', 'running')"
_UNINDEXED = "SELECT id FROM tasks WHERE state NOT IN ('accepted', 'running') AND indexed_at IS NULL"

_SIGNS = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM attempts), (SELECT count(*) FROM dead_letters)"
_STILL_S = 20.0
"""Longer than the wait of anything that begins by itself: a lease, two for the reconciler, a retry."""

_ASK_S = 2.0


async def drained(stage: Stage, timeout_s: float, hopeless: Callable[[], Awaitable[bool]] | None = None) -> float:
    """Wait until no task is open, no entry is left and memory has every result; seconds it took.

    Gives up silently where it takes longer, where nothing has moved for so long that nothing will, or where `hopeless`
    says that waiting changes nothing: the ledger decides.
    """
    began = moved = asked = now()
    seen: tuple[object, ...] = ()
    while now() - began < timeout_s:
        try:
            async with stage.database() as connection:
                open_tasks = await connection.fetchval(_OPEN)
                late = len(await connection.fetch(_UNINDEXED))
                signs = tuple(await connection.fetchrow(_SIGNS) or ())
            entries = await left(stage)
            if not open_tasks and not late and not any(entries.values()):
                break
            if hopeless is not None and now() - asked > _ASK_S:
                asked = now()
                if await hopeless():
                    break
        except (OSError, asyncpg.PostgresError, RedisError):
            moved = now()  # a server that is still on its way back
        else:
            if seen != (open_tasks, late, signs, entries):
                seen, moved = (open_tasks, late, signs, entries), now()
            if not await stage.all_ready():
                moved = now()  # who has just been killed may take a while to come back
            # What only memory lacks is sent again after pauses that double.
            if now() - moved > _STILL_S and (open_tasks or any(entries.values())):
                break
        await asyncio.sleep(0.2)
    return now() - began


async def left(stage: Stage) -> dict[str, int]:
    """What is still in Redis, by key."""
    topology = load_topology(stage.folder / "streams.yaml", stage.schemas)
    found = {}
    async with stage.client() as client:
        for lane in topology.lanes:
            keys = LaneKeys(lane)
            streams = [stream for topic in topology.topics.values() for stream in keys.streams(topic)]
            for stream in (*streams, *(f"ingest:{tenant}" for tenant in topology.ingest.tenants)):
                found[stream] = int(await client.xlen(stream))
            for waiting in map(keys.waiting, streams):
                found[waiting] = int(await client.hlen(waiting))
            found[keys.in_flight] = int(await client.hlen(keys.in_flight))
            found[keys.schedule] = int(await client.zcard(keys.schedule))
            found[keys.messages] = int(await client.hlen(keys.messages))
    return found


async def read_system(stage: Stage) -> System:
    """Everything the checker compares, as of one moment."""
    async with stage.database() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        tasks = [_plain(row) for row in await connection.fetch(_TASKS)]
        finished = {(row["task"], row["run"]): row["n"] for row in await connection.fetch(_FINISHED)}
        ahead = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8") - now()
        ended_at = {(row["task"], row["run"]): row["at"] - ahead for row in await connection.fetch(_ENDS)}
        attempts = [dict(row) for row in await connection.fetch(_ATTEMPTS)]
        steps = [dict(row) for row in await connection.fetch(_STEPS)]
        dead_letters = [dict(row) for row in await connection.fetch(_DEAD_LETTERS)]
        unindexed = [row["id"] for row in await connection.fetch(_UNINDEXED)]
    statuses = await _statuses(stage, [task["id"] for task in tasks])
    return System(tasks, finished, attempts, steps, dead_letters, await left(stage), ended_at, unindexed, statuses)


async def _statuses(stage: Stage, tasks: Sequence[str]) -> dict[str, str]:
    async with stage.client() as client:
        asking = client.pipeline(transaction=False)
        for task in tasks:
            asking.hget(LaneKeys(lane_of(task)).status(task), "state")
        found = await asking.execute(raise_on_error=False)
    # The status of an admission is no hash.
    states = {
        task: "accepted" if isinstance(state, ResponseError) else state
        for task, state in zip(tasks, found, strict=True)
    }
    return {task: state.decode() if isinstance(state, bytes) else state for task, state in states.items() if state}


async def history(stage: Stage, task: str) -> list[str]:
    """Everything that Postgres keeps about one task, a line each."""
    async with stage.database() as connection:
        rows = await connection.fetch(
            "SELECT 'event' AS what, to_jsonb(events)::text AS row FROM events WHERE task = $1 UNION ALL "
            "SELECT 'attempt', to_jsonb(attempts)::text FROM attempts WHERE task = $1 UNION ALL "
            "SELECT 'step', to_jsonb(steps)::text FROM steps WHERE task = $1",
            task,
        )
    return [f"{row['what']} {row['row']}" for row in rows]


def _plain(row: asyncpg.Record) -> dict[str, Any]:
    found = dict(row)
    if isinstance(found["answer"], str):
        found["answer"] = json.loads(found["answer"])
    return found
