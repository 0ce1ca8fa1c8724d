"""Tasks that enter through Redis, as the reflex writes them, and their end there."""

from typing import Any

import redis.asyncio

from tests.helpers.consumers import KEYS
from tests.helpers.messages import submitted_entry
from tests.helpers.waiting import until


async def put(client: redis.asyncio.Redis, **submission: Any) -> str:
    """Write an admitted task onto its stream and return its id."""
    task, stream, fields = submitted_entry(**submission)
    await client.xadd(stream, fields)
    return task


async def status(client: redis.asyncio.Redis, task: str) -> dict[str, str]:
    """Read a task's status as the orchestrator writes it; empty if there is none or only the one of the admission."""
    if await client.type(KEYS.status(task)) == b"string":
        return {}
    return {name.decode(): value.decode() for name, value in (await client.hgetall(KEYS.status(task))).items()}


async def ended(client: redis.asyncio.Redis, task: str) -> dict[str, str]:
    """Wait until the task's status is terminal and return the status."""

    async def terminal() -> bool:
        return (await status(client, task)).get("state") not in {None, "accepted", "running"}

    await until(terminal, f"the end of task {task}")
    return await status(client, task)
