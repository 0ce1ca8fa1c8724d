"""Serves the HTTP API in this process: its listener, its connections, its shutdown.

Installs no signal handlers.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog
import uvicorn

from octollm.api.app import create_app
from octollm.api.authentication import Authenticator
from octollm.api.hosts import AllowedHosts
from octollm.api.store import open_store
from octollm.credentials.table import KeyTable
from octollm.database.pool import open_pool
from octollm.errors import SettingsError, StartError, StoreUnavailableError
from octollm.periodic import run_periodically
from octollm.runtime.connect_retry import cause
from octollm.settings.loader import Settings
from octollm.settings.sections import ApiSettings, join_listen, split_listen

TASK = "octollm-api"
"""Name of the task that serves."""
_BACKLOG = 2048
_KEYS_ANSWER_S = 1.0
_log = structlog.get_logger(__name__)


@asynccontextmanager
async def serve_api(
    settings: Settings, *, failed: Callable[[StartError], None] = lambda _error: None
) -> AsyncIterator[str]:
    """Serve until the block is left; yield the base URL. While Postgres is unavailable, answers are 503.

    `failed` is called if the server ends by itself. Raises SettingsError for an address that cannot be used, and
    StartError if the server does not start.
    """
    listener = _listener(settings.api.listen)
    dsn = settings.postgres.dsn
    async with open_store(dsn, settings.postgres.pool_size) as store, _key_table(dsn, failed) as keys:
        config = uvicorn.Config(
            create_app(store, _authenticator(settings.api, keys, listener)),
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


@asynccontextmanager
async def _key_table(dsn: str, failed: Callable[[StartError], None]) -> AsyncIterator[KeyTable]:
    """Yield a table of API keys that is kept up to date, also while Postgres comes and goes."""
    pool = await open_pool(dsn, 1, _KEYS_ANSWER_S, application_name="octollm-api-keys")
    keys = KeyTable(pool)
    with suppress(TimeoutError):
        async with asyncio.timeout(_KEYS_ANSWER_S):
            await keys.refresh()

    def ended(work: asyncio.Task[None]) -> None:
        failed(_ended(work))

    loops = [asyncio.create_task(run_periodically(job), name=job.name) for job in keys.jobs()]  # noqa: TID251  `ended`
    for loop in loops:
        loop.add_done_callback(ended)
    try:
        yield keys
    finally:
        for loop in loops:
            loop.remove_done_callback(ended)
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        with suppress(StoreUnavailableError, TimeoutError):
            async with asyncio.timeout(_KEYS_ANSWER_S):
                await keys.report_uses()
        await pool.close()


def _authenticator(settings: ApiSettings, keys: KeyTable, listener: socket.socket) -> Authenticator:
    loopback = _is_loopback(listener.getsockname()[0])
    anonymous = settings.anonymous == "on" or (settings.anonymous == "auto" and loopback)
    if anonymous and not loopback:
        _log.warning(
            'api.anonymous is on: anyone who reaches this address reads the tasks of the tenant "default"',
            listen=settings.listen,
        )
    hosts = AllowedHosts(loopback=loopback, url=settings.url)
    return Authenticator(keys, hosts, settings.secret.get_secret_value(), anonymous=anonymous)


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


def _listener(listen: str) -> socket.socket:
    host, port = split_listen(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
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
