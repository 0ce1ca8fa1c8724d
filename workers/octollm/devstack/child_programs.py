"""The two Rust programs as children of an embedded stack: started with its settings, ready, drained."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from octollm.devstack.embedded.process import Child
from octollm.errors import StartError
from octollm.runtime.programs import EXECUTOR, REFLEX, find_program
from octollm.settings import files
from octollm.settings.loader import Settings, variable

_READY_S = 30
_TELL_S = 2
"""After this long it is said what a program waits for."""


@asynccontextmanager
async def start_program(
    name: str, settings: Settings, folder: Path, url: str, tell: Callable[[str], None]
) -> AsyncIterator[Child]:
    """A running program that reports itself ready at `url`; drained and stopped at the end."""
    environment = _environment(name, settings)
    child = await Child.start(name, [find_program(name)], log=folder / f"{name}.log", env=environment)
    drain_s = settings.executor.drain_s if name == EXECUTOR else settings.reflex.drain_s
    try:
        await _ready(child, f"{url}/readyz", tell)
        yield child
    finally:
        running = child.exit_code is None
        await child.stop((signal.SIGTERM, drain_s + 5))
        if running and child.exit_code == -signal.SIGKILL:
            tell(f"{name} did not stop within {drain_s + 5} s and was killed")


def _environment(name: str, settings: Settings) -> dict[str, str]:
    """This process's environment with every setting spelled out: the child must not decide differently.

    Secrets are for the one program that needs them.
    """
    values = {
        variable(section, key): str(value).lower() if isinstance(value, bool) else str(value)
        for section, keys in settings.model_dump().items()
        for key, value in keys.items()
    }
    values[variable("topology", "file")] = str(files.topology_path(settings))
    values[variable("api", "secret")] = settings.api.secret.get_secret_value() if name == REFLEX else ""
    values[variable("api", "key")] = ""
    return os.environ | values


async def _ready(child: Child, url: str, tell: Callable[[str], None]) -> None:
    """Wait until the program answers that it is ready. Raises StartError when it ends or takes too long.

    A program that waits for Redis alone, for instance because the disk is full, is waited for without a limit.
    """
    answer, reported = "it does not answer", False
    now = asyncio.get_running_loop().time
    deadline, tell_at = now() + _READY_S, now() + _TELL_S
    async with httpx2.AsyncClient(timeout=2, trust_env=False) as client:
        while now() < deadline:
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
                if reason := _waits_for_redis(response.content):
                    deadline = now() + _READY_S
                    if not reported and now() > tell_at:
                        reported = True
                        tell(f"{child.name} waits: {reason}")
            await asyncio.sleep(0.02)
    raise StartError(
        f"{child.name} was not ready within {_READY_S} s: {answer}; the end of its log {child.log}:\n{child.tail()}"
    )


def _waits_for_redis(readiness: bytes) -> str:
    """Return why a program is not ready, if every reason that it gives is about Redis.

    Otherwise return an empty text.
    """
    try:
        reasons = json.loads(readiness)["reasons"]
    except (ValueError, KeyError, TypeError):
        return ""
    return "; ".join(reasons) if reasons and all(one.startswith("Redis ") for one in reasons) else ""
