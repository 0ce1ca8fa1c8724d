"""Calls of the script `admit`, which stores tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
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
    keys: list[str] = [key for one in tasks for key in (KEYS.status(one.task), one.key) if key]
    args: list[str | bytes | int] = [ttl_s, mark, len(tasks), 1]
    streams = []
    for one in tasks:
        streams.append(len(args))
        args += [one.stream, one.tenant, _status(one), _message(one), one.fingerprint if one.key else ""]
        args += [one.task] if one.key else []
    fairness.describe([fairness.topics[STREAM]], keys, args)
    for position in streams:
        args[position] = keys.index(str(args[position])) + 1
    answers: list[Any] | bytes = await Scripts.of(client).admit(keys=keys, args=args)
    return [answers] * len(tasks) if isinstance(answers, bytes) else answers


def _status(one: Admission) -> bytes:
    status = {"task": one.task, "tenant": one.tenant, "state": "accepted", "run": 1, "version": 0, "stored": False}
    return orjson.dumps(status | {"created_at": "2026-01-31T12:00:00.000Z"})


def _message(one: Admission) -> bytes:
    """The message as its queue holds it: in MessagePack, no in-flight field and a list of names and values."""
    fields = ("type", "task.submitted.v1", "id", one.task, "tenant", one.tenant, "traceparent", "", "body", "{}")
    texts = b"".join(bytes([0xA0 + len(text)]) + text.encode() for text in fields)
    return b"\x92\xa0" + bytes([0x90 + len(fields)]) + texts
