"""`octollm worker`: runs one role in this process."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer
import uvloop

from octollm.observability.logging import configure_logging
from octollm.resources import schemas_path
from octollm.runtime.callbacks_role import ROLE as CALLBACKS
from octollm.runtime.callbacks_role import run_callbacks
from octollm.runtime.roles import require_python_role
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.supervision import exit_if_stuck
from octollm.topology import load_topology


def worker(
    role: Annotated[
        str,
        typer.Argument(
            help="callbacks, or a consumer group of the topology: orchestrator, archive, memory, or an arm."
        ),
    ],
    *,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=10000, help="How many messages to process at once; the default is in streams.yaml."),
    ] = None,
) -> None:
    """Run one role until SIGTERM or Ctrl-C.

    Any number of workers can run the same role, on any host.
    """
    settings = load_settings()
    if role == CALLBACKS:
        if concurrency is not None:
            raise typer.BadParameter("set OCTOLLM_CALLBACKS_MAX_ATTEMPTS instead", param_hint="--concurrency")
        configure_logging(settings.log)
        uvloop.run(_until_signal(lambda stop: run_callbacks(settings, stop)))
        return
    topology = load_topology(topology_path(settings), schemas_path())
    require_python_role(role, topology)
    configure_logging(settings.log)
    uvloop.run(
        _until_signal(lambda stop: run_roles([role], settings, topology, concurrency=concurrency, stop=stop))
    )  # fmt: skip


async def _until_signal(run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await run(stop)
    finally:
        exit_if_stuck()
