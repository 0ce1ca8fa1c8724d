"""The embedded stack: all that OctoLLM needs, started in order, watched, stopped in reverse order.

Owns that order: Redis and Postgres, migrations, executor, Python workers, API, reflex; back again at the end. The
command `octollm up`, the demo and the end-to-end tests all use this one class.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pydantic import SecretStr

from octollm import resources
from octollm.database.migrate import migrate
from octollm.devstack import preflight
from octollm.devstack.child_programs import start_program
from octollm.devstack.data_dir import DataDir
from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.postgres import EmbeddedPostgres
from octollm.devstack.embedded.process import Child
from octollm.devstack.embedded.redis import EmbeddedRedis
from octollm.errors import OctoError, StartError
from octollm.protocol.connection import probe
from octollm.runtime.api_role import serve_api
from octollm.runtime.callbacks_role import ROLE as CALLBACKS
from octollm.runtime.callbacks_role import load_rules, sending
from octollm.runtime.connect_retry import cause, until_reachable
from octollm.runtime.programs import EXECUTOR, REFLEX
from octollm.runtime.roles import python_roles, require_python_role
from octollm.runtime.worker import run_roles
from octollm.settings import files
from octollm.settings.loader import Settings, is_set
from octollm.settings.redis_url import redis_url
from octollm.settings.sections import Section, join_listen, split_listen
from octollm.supervision import Supervisor
from octollm.topology import Topology, load_topology

Progress = Callable[[str], None]
Changed = TypeVar("Changed", bound=Section)


@dataclass(frozen=True)
class Running:
    """Where the parts of a running stack are."""

    settings: Settings
    topology: Topology
    http_url: str
    api_url: str
    redis_url: str
    postgres_dsn: str
    data_dir: Path
    ephemeral: bool
    worker_metrics: str
    executor_metrics: str
    reflex_pid: int
    executor_pid: int
    redis_pid: int | None
    """None: Redis is somebody else's."""
    postgres_pid: int | None
    _failed: asyncio.Future[None] = field(repr=False)

    async def wait(self) -> None:
        """For ever, or until a part ends by itself: then StartError with its name and the end of its log."""
        await asyncio.shield(self._failed)


class Stack:
    """An async context manager that yields `Running`. On the way out nothing is left but a given `data`."""

    def __init__(
        self,
        settings: Settings,
        *,
        data: Path | None = None,
        port: int | None = None,
        concurrency: int | None = None,
        without: Collection[str] = (),
        progress: Progress | None = None,
    ) -> None:
        """`data`: keep everything there (None: temporary). `progress` gets a line for each event.

        `without`: Python roles that somebody else runs.
        """
        self._settings = settings
        self._data = data
        self._port = port
        self._concurrency = concurrency
        self._without = without
        self._tell: Progress = progress or (lambda _line: None)
        self._watchers: set[asyncio.Task[None]] = set()
        self._began = self._stopping = False
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Running:
        """Start everything; whatever goes wrong or is cancelled, what was started is stopped again."""
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            return await self._start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything in order."""
        self._stopping = True
        if self._began:
            self._tell("stopping")
        await self._exit.aclose()
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        if not self._failed.done():
            self._failed.cancel()
        elif not self._failed.cancelled():
            self._failed.exception()  # seen, also when nobody waited

    async def _start(self) -> Running:
        topology = load_topology(files.topology_path(self._settings), resources.schemas_path())
        for role in self._without:
            if role != CALLBACKS:
                require_python_role(role, topology)
        preflight.check(self._settings)
        data = self._exit.enter_context(DataDir(self._data))
        ports = self._exit.enter_context(Ports())
        settings = self._own_addresses(data, ports)
        redis, postgres = await self._stores(data, ports)
        settings = _with_stores(settings, redis, postgres)
        self._tell("migrating the database")
        await self._migrate(settings.postgres.dsn)
        executor = await self._exit.enter_async_context(
            self._program(EXECUTOR, settings, data, f"http://{settings.executor.metrics_listen}")
        )
        await self._exit.enter_async_context(self._workers(settings, topology))
        if CALLBACKS not in self._without:
            await self._exit.enter_async_context(self._callbacks(settings))
        self._tell("starting the API")
        await self._exit.enter_async_context(serve_api(settings, failed=self._fail))
        reflex = await self._exit.enter_async_context(self._program(REFLEX, settings, data, settings.reflex.url))
        return Running(
            settings=settings,
            topology=topology,
            http_url=settings.reflex.url,
            api_url=settings.api.url,
            redis_url=settings.redis.url,
            postgres_dsn=settings.postgres.dsn,
            data_dir=data.path,
            ephemeral=data.ephemeral,
            worker_metrics=f"http://{settings.worker.metrics_listen}/metrics",
            executor_metrics=f"http://{settings.executor.metrics_listen}/metrics",
            reflex_pid=reflex.pid,
            executor_pid=executor.pid,
            redis_pid=redis.child.pid if redis else None,
            postgres_pid=postgres.child.pid if postgres else None,
            _failed=self._failed,
        )

    async def _stores(self, data: DataDir, ports: Ports) -> tuple[EmbeddedRedis | None, EmbeddedPostgres | None]:
        """Redis first, so that it stops last: what the workers hand back on the way out needs it."""
        redis = postgres = None
        self._began = True
        if is_set("redis", "url"):
            self._tell("using the given Redis")
            given, url = self._settings.redis, redis_url(self._settings.redis)
            await until_reachable(
                "Redis", given.url, partial(probe, url, given.connect_timeout_s), asyncio.Event(), self._tell
            )
        else:
            self._tell("starting Redis")
            redis = await EmbeddedRedis.start(
                data.path / "redis",
                ports,
                server=self._settings.redis.server,
                synced=self._settings.reflex.durability == "fsync",
                keep_open=(data.lock,),
            )
            self._exit.push_async_callback(redis.stop)
            self._watch(redis.child)
        if is_set("postgres", "dsn"):
            self._tell("using the given Postgres")
        else:
            self._tell("starting Postgres")
            postgres = await EmbeddedPostgres.start(
                data.path / "postgres", ephemeral=data.ephemeral, keep_open=(data.lock,)
            )
            self._exit.push_async_callback(postgres.stop)
            self._watch(postgres.child)
        return redis, postgres

    def _own_addresses(self, data: DataDir, ports: Ports) -> Settings:
        """The settings with this stack's own listeners, chosen here so that all its processes know them."""
        given = self._settings
        host, wanted = split_listen(given.reflex.listen)
        if self._port is None:
            port = ports.take(wanted, host)
        elif ports.take_exactly(self._port, host):
            port = self._port
        else:
            raise StartError(f"port {self._port} on {host} is taken; choose another with --port")
        listen = join_listen(host, port)
        workspaces = data.path / "workspaces"
        workspaces.mkdir(exist_ok=True)
        executor = {
            "metrics_listen": _taken(given.executor.metrics_listen, ports),
            "workspace_dir": given.executor.workspace_dir or str(workspaces),
        }
        api = _taken(given.api.listen, ports)
        qdrant = given.qdrant
        if qdrant.store in {"auto", "edge"} and not (qdrant.url or qdrant.path):
            qdrant = _with(qdrant, path=str(data.path / "vectors"))
        return given.model_copy(
            update={
                "qdrant": qdrant,
                "reflex": _with(given.reflex, listen=listen, url=f"http://{_reached(listen)}"),
                "worker": _with(given.worker, metrics_listen=_taken(given.worker.metrics_listen, ports)),
                "executor": _with(given.executor, **executor),
                "api": _with(given.api, listen=api, url=f"http://{_reached(api)}", secret=_secret(given.api.secret)),
            }
        )

    async def _migrate(self, dsn: str) -> None:
        """Apply the migrations as soon as Postgres can be reached and written to. Raises StartError."""

        async def migrated() -> StartError | None:
            try:
                await migrate(dsn)
            except StartError as error:
                return error  # waiting does not help
            return None

        failure = await until_reachable("Postgres", dsn, migrated, asyncio.Event(), self._tell)
        if failure is not None:
            raise failure

    @asynccontextmanager
    async def _program(self, name: str, settings: Settings, data: DataDir, url: str) -> AsyncIterator[Child]:
        self._tell(f"starting {name}")
        async with start_program(name, settings, data.path, url, self._tell) as child:
            self._watch(child)
            yield child

    @asynccontextmanager
    async def _workers(self, settings: Settings, topology: Topology) -> AsyncIterator[None]:
        """The Python roles, in this process."""
        roles = [role for role in python_roles(topology) if role not in self._without]
        self._tell(f"starting the Python workers: {', '.join(roles)}")
        stop = asyncio.Event()
        roles_run = run_roles(roles, settings, topology, concurrency=self._concurrency, stop=stop)
        work = asyncio.create_task(roles_run)  # noqa: TID251  its end, for any reason, is the stack's failure
        work.add_done_callback(self._workers_ended)
        try:
            yield
        finally:
            stop.set()
            timeout_s = settings.worker.drain_s + 20  # for what the drain leaves over, see `Consumer.stop`
            try:
                await asyncio.wait_for(asyncio.gather(work, return_exceptions=True), timeout_s)
            except TimeoutError:
                self._tell(f"the Python workers did not stop within {timeout_s} s and were cut off")

    @asynccontextmanager
    async def _callbacks(self, settings: Settings) -> AsyncIterator[None]:
        """The role that sends callbacks, in this process."""
        supervisor = Supervisor()
        watcher = asyncio.create_task(self._until_failed(supervisor))  # noqa: TID251  ends with its supervisor
        self._watchers.add(watcher)
        try:
            async with sending(settings, load_rules(settings), supervisor):
                yield
        finally:
            await supervisor.stop()

    async def _until_failed(self, supervisor: Supervisor) -> None:
        try:
            await supervisor.until_failed()
        except OctoError as error:
            self._fail(error)

    def _workers_ended(self, work: asyncio.Task[None]) -> None:
        error = None if work.cancelled() else work.exception()
        if isinstance(error, OctoError):
            self._fail(error)
        elif error is not None:
            failure = StartError(f"the Python workers ended: {type(error).__name__}: {cause(error)}")
            failure.__cause__ = error
            self._fail(failure)
        else:
            self._fail(StartError("the Python workers ended by themselves"))

    def _watch(self, child: Child) -> None:
        async def until_ended() -> None:
            await child.wait()
            self._fail(child.ended())

        self._watchers.add(asyncio.create_task(until_ended()))  # noqa: TID251  ends with the child it watches

    def _fail(self, error: OctoError) -> None:
        if not self._stopping and not self._failed.done():
            self._failed.set_exception(error)


def _with(section: Changed, **values: object) -> Changed:
    return section.model_copy(update=values)


def _secret(given: SecretStr) -> SecretStr:
    """The secret of the reflex and the API: the configured one, or one for the lifetime of this stack."""
    return given if given.get_secret_value() else SecretStr(secrets.token_hex(32))


def _reached(listen: str) -> str:
    """Where this machine finds what listens there."""
    host, port = split_listen(listen)
    return join_listen("127.0.0.1" if host in {"0.0.0.0", "::"} else host, port)  # noqa: S104 (compared, not bound)


def _taken(listen: str, ports: Ports) -> str:
    """The address with a port that is free, so that it can be printed before the listener is up."""
    host, port = split_listen(listen)
    return join_listen(host, ports.take(port, host))


def _with_stores(settings: Settings, redis: EmbeddedRedis | None, postgres: EmbeddedPostgres | None) -> Settings:
    changes: dict[str, Section] = {}
    if redis is not None:
        changes["redis"] = _with(settings.redis, url=redis.url)
    if postgres is not None:
        changes["postgres"] = _with(settings.postgres, dsn=postgres.dsn)
    return settings.model_copy(update=changes)
