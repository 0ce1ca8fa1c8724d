"""The two Rust programs as children of an embedded stack: started with its settings, ready, drained."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from octollm.devstack.embedded.process import Child
from octollm.errors import StartError
from octollm.runtime.programs import EXECUTOR, find_program
from octollm.settings import files
from octollm.settings.loader import Settings, variable

_READY_S = 30


@asynccontextmanager
async def start_program(
    name: str, settings: Settings, folder: Path, url: str, tell: Callable[[str], None]
) -> AsyncIterator[Child]:
    """A running program that reports itself ready at `url`; drained and stopped at the end."""
    child = await Child.start(name, [find_program(name)], log=folder / f"{name}.log", env=_environment(settings))
    drain_s = settings.executor.drain_s if name == EXECUTOR else settings.reflex.drain_s
    try:
        await _ready(child, f"{url}/readyz")
        yield child
    finally:
        running = child.exit_code is None
        await child.stop((signal.SIGTERM, drain_s + 5))
        if running and child.exit_code == -signal.SIGKILL:
            tell(f"{name} did not stop within {drain_s + 5} s and was killed")


def _environment(settings: Settings) -> dict[str, str]:
    """This process's environment with every setting spelled out: the child must not decide differently."""
    values = {
        variable(section, key): str(value).lower() if isinstance(value, bool) else str(value)
        for section, keys in settings.model_dump().items()
        for key, value in keys.items()
    }
    values[variable("topology", "file")] = str(files.topology_path(settings))
    return os.environ | values


async def _ready(child: Child, url: str) -> None:
    """Until the program answers that it is ready; raises StartError when it ends or takes too long."""
    answer = "it does not answer"
    deadline = asyncio.get_running_loop().time() + _READY_S
    async with httpx2.AsyncClient(timeout=2, trust_env=False) as client:
        while asyncio.get_running_loop().time() < deadline:
            if child.exit_code is not None:
                raise child.ended()
            try:
                response = await client.get(url)
            except httpx2.TransportError as error:
                answer = f"it does not answer ({type(error).__name__})"
            else:
                if response.is_success:
                    return
                answer = f"it answers {response.status_code}: {response.text.strip()[:300]}"
            await asyncio.sleep(0.02)
    raise StartError(
        f"{child.name} was not ready within {_READY_S} s: {answer}; the end of its log {child.log}:\n{child.tail()}"
    )
