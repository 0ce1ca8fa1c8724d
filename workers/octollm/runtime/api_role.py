"""Serves the HTTP API in this process: its listener, its connections, its shutdown.

Installs no signal handlers.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn

from octollm.api.app import create_app
from octollm.api.store import open_store
from octollm.errors import SettingsError, StartError
from octollm.runtime.connect_retry import cause
from octollm.settings.loader import Settings
from octollm.settings.sections import join_listen, split_listen

TASK = "octollm-api"
"""Name of the task that serves."""
_BACKLOG = 2048
_log = structlog.get_logger(__name__)


@asynccontextmanager
async def serve_api(
    settings: Settings, *, failed: Callable[[StartError], None] = lambda _error: None
) -> AsyncIterator[str]:
    """Serve until the block is left; yield the base URL. While Postgres is unavailable, answers are 503.

    `failed` is called if the server ends by itself. Raises SettingsError for an address that cannot or must not be
    used, and StartError if the server does not start.
    """
    listener = _listener(settings)
    async with open_store(settings.postgres.dsn, settings.postgres.pool_size) as store:
        config = uvicorn.Config(
            create_app(store),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=settings.worker.drain_s,
        )
        server = _Server(config)
        address = join_listen(*listener.getsockname()[:2])
        work = asyncio.create_task(server.serve(sockets=[listener]), name=TASK)  # noqa: TID251  `ended` reports its end

        def ended(work: asyncio.Task[None]) -> None:
            failed(_ended(work))

        try:
            await server.until_started(work)
            work.add_done_callback(ended)
            _log.info("API started", address=address)
            yield f"http://{address}"
        finally:
            work.remove_done_callback(ended)
            server.should_exit = True
            await asyncio.gather(work, return_exceptions=True)
            listener.close()


async def run_api(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the API until `stop` is set. Raises StartError if it ends before."""
    failures: list[StartError] = []

    def failed(error: StartError) -> None:
        failures.append(error)
        stop.set()

    async with serve_api(settings, failed=failed):
        await stop.wait()
        if failures:
            raise failures[0]
        _log.info("stopping: no new requests are accepted, running ones may finish", drain_s=settings.worker.drain_s)
    _log.info("stopped")


class _Server(uvicorn.Server):
    """Leaves signals to the process, which may run other roles too."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up.set()

    async def until_started(self, work: asyncio.Task[None]) -> None:
        """Wait until the server listens. Raises StartError if `work`, the server's own task, ends before."""
        started = asyncio.create_task(self._up.wait())  # noqa: TID251  awaited below
        try:
            await asyncio.wait((work, started), return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
        if work.done():
            raise StartError("the API did not start") from (None if work.cancelled() else work.exception())


def _ended(work: asyncio.Task[None]) -> StartError:
    error = None if work.cancelled() else work.exception()
    why = f": {type(error).__name__}: {cause(error)}" if error else " by itself"
    failure = StartError(f"the API ended{why}")
    failure.__cause__ = error
    return failure


def _listener(settings: Settings) -> socket.socket:
    listen = settings.api.listen
    host, port = split_listen(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if not settings.api.trust_network and not _is_loopback(str(address[0])):
            raise SettingsError(
                f"api.listen {listen} can be reached from other hosts, and the API trusts every caller; "
                "listen on 127.0.0.1, or set OCTOLLM_API_TRUST_NETWORK=true where only the reflex can reach it"
            )
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(listen, error) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise _refused(listen, error) from error
    made.setblocking(False)  # noqa: FBT003  the socket's own argument
    return made


def _refused(listen: str, error: OSError) -> SettingsError:
    return SettingsError(
        f"the API cannot listen on {listen} ({error.strerror}); set OCTOLLM_API_LISTEN to a free address "
        "(port 0 picks one)"
    )


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
