"""`octollm api`: the HTTP API over Postgres, in the foreground."""

import asyncio
import signal

import uvloop

from octollm.observability.logging import configure_logging
from octollm.runtime.api_role import run_api
from octollm.settings.loader import Settings, load_settings


def api() -> None:
    """Serve the HTTP API over Postgres until SIGTERM or Ctrl-C."""
    settings = load_settings()
    configure_logging(settings.log)
    uvloop.run(_run(settings))


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await run_api(settings, stop)
