"""`octollm up` while Redis cannot serve it yet."""

import asyncio
from pathlib import Path

from tests.helpers.full_disk import refuse_writes
from tests.helpers.programs import up
from tests.helpers.waiting import until


async def test_up_waits_for_a_redis_that_accepts_no_writes_and_says_so(redis_server, client, tmp_path: Path):
    end = await refuse_writes(client)
    log = tmp_path / "up.log"

    def start() -> str:
        with up(tmp_path, OCTOLLM_REDIS_URL=redis_server.url) as running:
            task = running.submit({"goal": "x", "kind": "note", "input": {"text": "x"}}).json()["task"]
            return str(running.ended(task)["state"])

    running = asyncio.create_task(asyncio.to_thread(start))

    async def said() -> bool:
        return running.done() or "octollm-executor waits: Redis is unavailable: MISCONF" in log.read_text()

    await until(lambda: asyncio.to_thread(log.exists))
    await until(said)
    assert not running.done()
    await end()
    assert await running == "succeeded"
