"""A reflex of its own for a test that needs nothing else of the stack."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import httpx

from octollm.devstack.embedded.ports import Ports
from octollm.runtime.programs import REFLEX, find_program
from tests.helpers.waiting import until

TASKS = "{l0}:tasks:normal"
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def reflex(redis_url: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run the built reflex, and give a client of it once it knows which kinds are published.

    `folder`: for its log. A kind `unheard-of` must not be published.
    """
    with Ports() as ports:
        listen = f"127.0.0.1:{ports.take()}"
        environment = os.environ | {"OCTOLLM_REDIS_URL": redis_url, "OCTOLLM_REFLEX_LISTEN": listen}
        log_file = folder / "reflex.log"
        with log_file.open("wb") as log:
            program = find_program(REFLEX)
            process = await asyncio.create_subprocess_exec(program, env=environment, stdout=log, stderr=log)
        async with httpx.AsyncClient(base_url=f"http://{listen}", trust_env=False, timeout=60) as client:

            async def knows_the_kinds() -> bool:
                unknown = {"goal": "x", "kind": "unheard-of", "priority": "low"}
                try:
                    answer = await client.post("/v1/tasks", json=unknown)
                except httpx.TransportError:
                    return False
                return answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY

            try:
                await until(knows_the_kinds, "the reflex to know the kinds")
                yield client
            finally:
                process.terminate()
                assert await process.wait() == 0, log_file.read_text()[-3000:]
