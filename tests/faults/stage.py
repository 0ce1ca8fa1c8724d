"""The real stack for a campaign: built programs, one process per role and number, each behind proxies of its own.

Everything is in one folder and is deleted with it.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import redis.asyncio

from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.postgres import EmbeddedPostgres
from octollm.devstack.embedded.process import Child
from octollm.devstack.embedded.redis import find_server
from octollm.errors import StartError
from octollm.settings.loader import load_settings
from tests.faults.instance import Instance
from tests.faults.proxy import Proxy
from tests.faults.vectors import DIMENSION, VectorServer
from tests.faults.work import ARM, RECIPES, WATCHED

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LEASE_S = 3
TENANTS = ("default", "other")
PLAN = {"reflex": 2, "orchestrator": 2, "archive": 1, "memory": 1, "effect": 2, "judge": 1, "executor": 2}
"""Role to how many processes of it."""
_START_S = 180.0
"""For a machine on which much else runs."""


class Stage:
    """An async context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        package: Path = ROOT,
        programs: Path | None = None,
        high_water: int = 100_000,
        direct: bool = False,
        durability: str = "auto",
    ) -> None:
        """`package`: the checkout whose Python code runs, for planted bugs a copy. `programs`: a folder with Rust
        programs that are preferred to the release build. `high_water`: of the topic tasks.
        `direct`: linear chains go from arm to arm. `durability`: what the reflexes need for a 202.
        """
        self.folder = folder
        self._package = package
        self._programs = programs
        self._high_water = high_water
        self.direct = direct
        self.durability = durability
        self._ports = Ports()
        self._exits = contextlib.AsyncExitStack()
        self._keepers: list[asyncio.Task[None]] = []
        self._http = httpx.AsyncClient(trust_env=False, timeout=2)
        self.instances: list[Instance] = []
        self.redis: Child | None = None
        self.redis_port = 0
        self.redis_dir = folder / "redis"
        self.redis_options: list[str] = []
        self.redis_environment: dict[str, str] = {}
        self.postgres: EmbeddedPostgres | None = None
        self._vectors: tuple[VectorServer, Proxy] | None = None
        self.effects = folder / "effects.jsonl"
        self.schemas = ROOT / "schemas" / "events"

    async def __aenter__(self) -> "Stage":
        """Servers first, then everybody; returns when all are ready."""
        try:
            self._exits.enter_context(self._ports)
            await self._exits.enter_async_context(self._http)
            self._files()
            self.redis_port = self._ports.take(0)
            await self.start_redis()
            self.postgres = await EmbeddedPostgres.start(self.folder / "postgres", ephemeral=False)
            for role, count in PLAN.items():
                for number in range(count):
                    self.instances.append(await self._instance(role, number))
            first = next(one for one in self.instances if one.role == "orchestrator")
            self._keepers = [asyncio.create_task(first.keep(self._settings))]
            await self.until(self._migrated, "the migration", _START_S, [first])
            self._keepers += [
                asyncio.create_task(one.keep(self._settings)) for one in self.instances if one is not first
            ]
            await self.until(self.all_ready, "readiness of every process", _START_S, self.instances)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End every process."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(one.end() for one in self.instances))
        if self.postgres is not None:
            self.postgres.child.send(signal.SIGCONT)
            await self.postgres.stop()
        if self.redis is not None:
            self.redis.send(signal.SIGCONT)
            await self.redis.stop((signal.SIGTERM, 5))
        await self._exits.aclose()

    # Servers -------------------------------------------------------------------------------------------------

    async def start_redis(self, *options: str) -> None:
        """On the same port and folder as before."""
        program, _ = find_server(load_settings().redis.server)
        self.redis_dir.mkdir(exist_ok=True)
        command = [
            *(program, "--bind", "127.0.0.1", "--port", str(self.redis_port), "--dir", str(self.redis_dir)),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
            *("--auto-aof-rewrite-percentage", "0", "--repl-diskless-sync-delay", "0", *self.redis_options, *options),
        ]
        self.redis = await Child.start(
            "Redis",
            command,
            log=self.folder / "redis.log",
            cwd=self.redis_dir,
            env=os.environ | self.redis_environment,
        )
        await self.until(self._redis_answers, "Redis", 30)

    async def stop_redis(self) -> None:
        """In order, where it still runs."""
        if self.redis is not None:
            await self.redis.stop((signal.SIGTERM, 10))

    async def kill_redis(self) -> None:
        """Without a word."""
        if self.redis is not None:
            self.redis.send(signal.SIGKILL)
            await self.redis.wait()

    async def restart_postgres(self) -> None:
        """After it was killed: recovery from its log."""
        self.postgres = await EmbeddedPostgres.start(self.folder / "postgres", ephemeral=False)

    async def kill_postgres(self) -> None:
        """All its processes at once and without a checkpoint; the next start recovers from its log."""
        if self.postgres is not None:
            self.postgres.child.send(signal.SIGQUIT)
            await self.postgres.child.wait()

    async def give_vectors(self) -> tuple[VectorServer, Proxy]:
        """From now on memory has a vector store, behind a way of its own."""
        if self._vectors is None:
            server = VectorServer()
            server.start()
            self._exits.callback(server.stop)
            way = Proxy(("127.0.0.1", server.port))
            await way.start()
            self._exits.push_async_callback(way.stop)
            self._vectors = server, way
            for one in self.of("memory"):
                one.environment = {
                    "OCTOLLM_QDRANT_STORE": "server",
                    "OCTOLLM_QDRANT_URL": f"http://127.0.0.1:{way.port}",
                    "OCTOLLM_EMBEDDING_PROVIDER": "openai",
                    "OCTOLLM_EMBEDDING_MODEL": "lengths",
                    "OCTOLLM_EMBEDDING_URL": f"http://127.0.0.1:{server.port}/v1",
                    "OCTOLLM_EMBEDDING_DIMENSION": str(DIMENSION),
                }
                starts = one.starts
                one.kill(signal.SIGTERM)
                await self.again(one, starts)
        return self._vectors

    def take_port(self) -> int:
        """A free port for a server of a scenario."""
        return self._ports.take(0)

    def client(self) -> contextlib.AbstractAsyncContextManager[redis.asyncio.Redis]:
        """Straight to Redis."""
        return self.client_at(self.redis_port)

    @contextlib.asynccontextmanager
    async def client_at(self, port: int) -> AsyncIterator[redis.asyncio.Redis]:
        """Straight to the Redis on that port."""
        made = redis.asyncio.Redis(port=port)
        try:
            yield made
        finally:
            await made.aclose()

    @contextlib.asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """Straight to Postgres."""
        assert self.postgres is not None
        connection = await asyncpg.connect(self.postgres.dsn)
        try:
            yield connection
        finally:
            await connection.close()

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """All rows; none while Postgres is unavailable."""
        try:
            async with self.database() as connection:
                return list(await connection.fetch(query, *arguments))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return []

    async def value(self, query: str, *arguments: object) -> Any:
        """The first value of the first row; None while Postgres is unavailable."""
        rows = await self.rows(query, *arguments)
        return rows[0][0] if rows else None

    # Processes -----------------------------------------------------------------------------------------------

    def of(self, role: str) -> list[Instance]:
        """All processes of a role."""
        return [one for one in self.instances if one.role == role]

    def proxies(self, server: str, roles: Iterable[str] | None = None) -> list[Proxy]:
        """The ways of these roles (all) to `redis` or `postgres`."""
        wanted = set(PLAN if roles is None else roles)
        return [getattr(one, server) for one in self.instances if one.role in wanted]

    async def all_ready(self) -> bool:
        """Whether every wanted process says so."""
        for one in self.instances:
            if one.wanted and not await self.ready(one):
                return False
        return True

    async def ready(self, one: Instance) -> bool:
        """Whether this process says that it is ready."""
        return await one.ready(self._http)

    async def again(self, one: Instance, starts: int) -> None:
        """Until it has been started more often than that and is ready."""

        async def back() -> bool:
            return one.starts > starts and await self.ready(one)

        await self.until(back, f"{one.name} back", _START_S, [one])

    async def until(
        self, condition: Callable[[], object], what: str, timeout_s: float, by: Sequence[Instance] = ()
    ) -> None:
        """Poll; StartError names what did not come, and what those who were to bring it have said last."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            for keeper in self._keepers:
                if keeper.done():
                    await keeper  # it ends only with an error
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            if asyncio.get_running_loop().time() > deadline:
                said = "".join([f"\n{one.last_words()}" for one in by if not await self.ready(one)])
                raise StartError(f"{what} did not come within {timeout_s} s{said}")
            await asyncio.sleep(0.05)

    async def _instance(self, role: str, number: int) -> Instance:
        assert self.postgres is not None
        ways = Proxy(("127.0.0.1", self.redis_port)), Proxy(f"{self.postgres.dsn.partition('host=')[2]}/.s.PGSQL.5432")
        for way in ways:
            await way.start()
        listen = f"http://127.0.0.1:{self._ports.take(0)}"
        return Instance(role, number, *ways, listen, self.folder, self._programs)

    def _settings(self, one: Instance) -> dict[str, str]:
        listen = one.http.removeprefix("http://")
        return {
            "OCTOLLM_REDIS_URL": f"redis://127.0.0.1:{one.redis.port}/0",
            "OCTOLLM_POSTGRES_DSN": f"postgresql://octollm@127.0.0.1:{one.postgres.port}/octollm",
            "OCTOLLM_TOPOLOGY_FILE": str(self.folder / "streams.yaml"),
            "OCTOLLM_ORCHESTRATOR_RECIPES_DIR": str(self.folder / "recipes"),
            "OCTOLLM_ORCHESTRATOR_RECONCILE_INTERVAL_S": "1",
            "OCTOLLM_HANDOFF_DIRECT": str(self.direct).lower(),
            "OCTOLLM_REFLEX_LISTEN": listen,
            "OCTOLLM_REFLEX_DURABILITY": self.durability,
            "OCTOLLM_REFLEX_DURABILITY_WAIT_S": "3",  # below the time-out of the producers
            "OCTOLLM_WORKER_METRICS_LISTEN": listen,
            "OCTOLLM_EXECUTOR_METRICS_LISTEN": listen,
            "OCTOLLM_EXECUTOR_WORKSPACE_DIR": str(self.folder / "workspaces"),
            # The executor says which steps it runs; `runs.py` reads that.
            "OCTOLLM_LOG_LEVEL": "info" if one.role == "executor" else "warning",
            # No fault here is one of the arm itself: its breaker must not open, however soon it would.
            "OCTOLLM_WORKER_CIRCUIT_BREAKER_TASKS": "2" if one.role == "effect" else "5",
            "OCTOLLM_EMBEDDING_PROVIDER": "none",
            "OCTOLLM_QDRANT_STORE": "none",
            "FAULTS_EFFECTS": str(self.effects),
            "PYTHONPATH": f"{self._package / 'workers'}:{HERE / 'arms'}",
        }

    def _files(self) -> None:
        text = (ROOT / "streams.yaml").read_text()
        for old, new in (
            ("lease_s: 30", f"lease_s: {LEASE_S}"),
            ("lease_s: 60", f"lease_s: {LEASE_S}"),
            ("heartbeat_s: 5", "heartbeat_s: 1"),
            ("tenants: [default]", f"tenants: [{', '.join(TENANTS)}]"),
            ("high_water: 100000", f"high_water: {self._high_water}"),
            ("\n  dead:\n", ARM),
            WATCHED,
        ):
            if old not in text:
                raise StartError(f"streams.yaml has no {old!r}: the stage has to be adapted to it")
            text = text.replace(old, new)
        (self.folder / "streams.yaml").write_text(text)
        (self.folder / "recipes").mkdir()
        (self.folder / "workspaces").mkdir()
        for name, recipe in RECIPES.items():
            (self.folder / "recipes" / f"{name}.yaml").write_text(recipe)

    async def _redis_answers(self) -> bool:
        async with self.client() as client:
            try:
                return bool(await client.ping())
            except redis.exceptions.RedisError:
                if self.redis is not None and self.redis.exit_code is not None:
                    raise self.redis.ended() from None
                return False

    async def _migrated(self) -> bool:
        async with self.database() as connection:
            return bool(await connection.fetchval("SELECT to_regclass('tasks') IS NOT NULL"))
