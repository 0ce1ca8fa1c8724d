"""Calls of the script `admit`, which stores tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio

from octollm.protocol.fairness import Fairness
from octollm.protocol.scripts import Scripts
from octollm.topology import LaneKeys

KEYS = LaneKeys("l0")
STREAM = "{l0}:tasks:normal"


@dataclass(frozen=True)
class Admission:
    """One task to store."""

    task: str
    tenant: str = "default"
    key: str = ""
    """The whole idempotency key in Redis; empty: none."""
    fingerprint: str = "aa"
    stream: str = STREAM


async def admit(
    client: redis.asyncio.Redis,
    fairness: Fairness,
    tasks: Sequence[Admission],
    *,
    ttl_s: int | str = 60,
    mark: int = 0,
) -> list[Any]:
    """Store tasks by one call; what became of each, in order."""
    keys: list[str] = []
    args: list[str | bytes | int] = [ttl_s, mark, len(tasks)]
    for one in tasks:
        indexes = []
        for key in (one.stream, KEYS.status(one.task), one.key):
            if key and key not in keys:
                keys.append(key)
            indexes.append(keys.index(key) + 1 if key else 0)
        args += indexes
        args += [one.fingerprint, one.task, one.tenant, "", "2026-01-31T12:00:00.000Z", "task.submitted.v1", "", "{}"]
    fairness.describe([fairness.topics[STREAM]], keys, args)
    answers: list[Any] = await Scripts.of(client).admit(keys=keys, args=args)
    return answers
