"""Reads what the system itself knows, straight from its stores, and waits until it has nothing left to do."""

import asyncio
import json
from typing import Any

import asyncpg
from ledger import System, now
from redis.exceptions import RedisError
from stage import Stage

from octollm.topology import LaneKeys, load_topology

_TASKS = """
SELECT id, tenant, state, reason, detail, run, idempotency_key, result->'answer' AS answer,
       extract(epoch FROM received_at) AS received_at
FROM tasks
"""
_FINISHED = "SELECT task, run, count(*) AS n FROM events WHERE body->>'event' = 'finished' GROUP BY task, run"
_ATTEMPTS = "SELECT task, run, step, round, attempt, delivery, outcome, worker FROM attempts"
_STEPS = "SELECT task, run, step, round, attempt, state FROM steps"
_LETTERS = "SELECT reason, task, body->>'stream' AS stream, body->>'entry' AS entry FROM dead_letters"
_OPEN = "SELECT count(*) FROM tasks WHERE state IN ('accepted', 'running')"


async def drained(stage: Stage, patience_s: float) -> float:
    """Wait until no task is open and no entry is left; seconds it took. Gives up silently: the ledger will tell."""
    began = now()
    while now() - began < patience_s:
        try:
            async with stage.database() as connection:
                open_tasks = await connection.fetchval(_OPEN)
            if open_tasks == 0 and not any((await left(stage)).values()):
                break
        except (OSError, asyncpg.PostgresError, RedisError):
            pass  # a server that is still on its way back
        await asyncio.sleep(0.2)
    return now() - began


async def left(stage: Stage) -> dict[str, int]:
    """What still lies in Redis, by key."""
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
            found[keys.live] = int(await client.hlen(keys.live))
            found[keys.schedule] = int(await client.zcard(keys.schedule))
            found[keys.messages] = int(await client.hlen(keys.messages))
    return found


async def read_system(stage: Stage) -> System:
    """Everything the checker compares."""
    async with stage.database() as connection:
        tasks = [_plain(row) for row in await connection.fetch(_TASKS)]
        finished = {(row["task"], row["run"]): row["n"] for row in await connection.fetch(_FINISHED)}
        attempts = [dict(row) for row in await connection.fetch(_ATTEMPTS)]
        steps = [dict(row) for row in await connection.fetch(_STEPS)]
        letters = [dict(row) for row in await connection.fetch(_LETTERS)]
    return System(tasks, finished, attempts, steps, letters, await left(stage))


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
