"""`octollm up`: the embedded stack in the foreground."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from octollm.cli.output import JsonOption, emit_json, note, out, pairs
from octollm.devstack.stack import Running, Stack
from octollm.observability.logging import configure_logging, without_passwords
from octollm.settings.loader import load_settings
from octollm.supervision import exit_if_stuck


def up(
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the data in this folder; by default it is deleted."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="HTTP port; by default 8080 or, if that is taken, a free one.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=10000, help="How many messages each Python role processes at once.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="Do not start this Python role, because you run it yourself; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """Start Redis, Postgres, both Rust programs and all workers.

    Ctrl-C stops them.
    """
    settings = load_settings()
    configure_logging(settings.log)
    stack = Stack(settings, data=data, port=port, concurrency=concurrency, without=without or (), progress=note)
    uvloop.run(_run(stack, as_json=as_json))


async def _run(stack: Stack, *, as_json: bool) -> None:
    """Run until a signal.

    The first one stops gracefully, even during the start; a second one ends the drain.
    """
    task = asyncio.current_task()
    if task is None:
        return
    loop = asyncio.get_running_loop()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    try:
        async with stack as running:
            _print(running, as_json=as_json)
            await running.wait()
    except asyncio.CancelledError:
        if not stopped:
            raise
    finally:
        exit_if_stuck()
    note("stopped")


def _print(running: Running, *, as_json: bool) -> None:
    addresses = {
        "http": running.http_url,
        "api": running.api_url,
        "redis": without_passwords(running.redis_url),
        "postgres": without_passwords(running.postgres_dsn),
        "data": str(running.data_dir),
        "metrics_workers": running.worker_metrics,
        "metrics_executor": running.executor_metrics,
        "metrics_reflex": f"{running.http_url}/metrics",
    }
    if as_json:
        emit_json({**addresses, "ephemeral": running.ephemeral, "reflex_pid": running.reflex_pid})
        return
    lifetime = " (deleted at the end; --data DIR keeps it)" if running.ephemeral else ""
    console = out()
    console.print("\nOctoLLM is up. Ctrl-C stops it.\n")
    console.print(
        pairs(
            [
                ("HTTP", addresses["http"]),
                ("API", addresses["api"]),
                ("Redis", addresses["redis"]),
                ("Postgres", addresses["postgres"]),
                ("Data", addresses["data"] + lifetime),
                ("Metrics", addresses["metrics_reflex"]),
                ("", addresses["metrics_workers"]),
                ("", addresses["metrics_executor"]),
            ]
        )
    )
    console.print()
