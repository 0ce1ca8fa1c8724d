"""A Redis that cannot write to its disk."""

import shutil
from collections.abc import Awaitable, Callable

import redis.asyncio

from tests.helpers.waiting import until


async def refuse_writes(client: redis.asyncio.Redis) -> Callable[[], Awaitable[object]]:
    """Let Redis answer MISCONF to writes, as on a full disk; return what ends that. Deletes the server's folder."""
    shutil.rmtree(str((await client.config_get("dir"))["dir"]))
    await client.config_set("save", "3600 1")
    await client.bgsave()

    async def failed() -> bool:
        return bool((await client.info("persistence"))["rdb_last_bgsave_status"] == "err")

    await until(failed)
    return lambda: client.config_set("stop-writes-on-bgsave-error", "no")
