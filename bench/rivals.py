"""What the hand-off is measured against, each a process of its own: stock FastStream, and a plain redis-py loop.

Usage: python -m bench.rivals faststream | raw | clock
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import redis.asyncio
import uvloop
from faststream import AckPolicy, FastStream
from faststream.redis import RedisBroker, StreamSub

_SOURCE, _TARGET = "{l0}:arm.noop:normal", "{l0}:steps.done"
_CLOCK = "{l0}:arm.clock:normal"
_GROUP, _BATCH = "noop", 100


async def _group(client: redis.asyncio.Redis, source: str) -> None:
    await client.xgroup_create(source, _GROUP, id="0", mkstream=True)


async def _nothing(step: dict[str, Any]) -> dict[str, Any]:
    return step


async def _raw(url: str) -> None:
    await _loop(url, _SOURCE, _nothing)


async def _clock(url: str) -> None:
    async def work(step: dict[str, Any]) -> dict[str, Any]:
        return {"at": time.time_ns(), "sent": step["input"]["sent"]}

    await _loop(url, _CLOCK, work)


async def _loop(url: str, source: str, work: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
    """A hundred entries at a time: read, work, and in one MULTI add, acknowledge and delete."""
    client = redis.asyncio.Redis.from_url(url)
    await _group(client, source)
    while True:
        response: Any = await client.xreadgroup(_GROUP, "raw", {source: ">"}, count=_BATCH, block=2000)
        if not response:
            continue
        entries = next(iter(response.values()))[0] if isinstance(response, dict) else response[0][1]
        pipe = client.pipeline(transaction=True)
        for _, fields in entries:
            step = orjson.loads(fields[b"body"])
            answer = orjson.dumps(await work(step))
            pipe.xadd(_TARGET, {"type": "step.done.v1", "id": fields[b"id"], "body": answer})
        ids = [entry for entry, _ in entries]
        pipe.xack(source, _GROUP, *ids)
        pipe.xdel(source, *ids)
        await pipe.execute()


async def _faststream(url: str) -> None:
    """As its documentation has it: a handler per message, a publication, then the acknowledgement."""
    broker = RedisBroker(url, logger=None)  # type: ignore[arg-type]  # as the rival does without our logs

    @broker.subscriber(
        stream=StreamSub(_SOURCE, group=_GROUP, consumer="stock", max_records=_BATCH),
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def work(step: dict[str, Any]) -> None:
        await broker.publish(await _nothing(step), stream=_TARGET)

    del work
    client = redis.asyncio.Redis.from_url(url)
    await _group(client, _SOURCE)
    await client.aclose()
    await FastStream(broker, logger=None).run()


def main(arguments: list[str]) -> None:
    """Until it is killed."""
    rivals = {"raw": _raw, "clock": _clock, "faststream": _faststream}
    if len(arguments) != 1 or arguments[0] not in rivals:
        raise SystemExit(__doc__)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(rivals[arguments[0]](os.environ["OCTOLLM_REDIS_URL"]))


if __name__ == "__main__":
    main(sys.argv[1:])
