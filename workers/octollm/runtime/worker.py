"""Runs roles of the topology in this process: connects, starts, reports, and drains when told to stop."""

import asyncio
import gc
import importlib
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from octollm.consumer.circuit_breaker import CircuitBreakerRule
from octollm.consumer.worker import Worker
from octollm.database.migrate import migrate
from octollm.database.pool import Pool, open_pool
from octollm.errors import WorkerError
from octollm.models.choose import expected
from octollm.observability.metrics import MetricsServer
from octollm.orchestrator.archive import Archive
from octollm.orchestrator.gather import Gatherer, Handle
from octollm.orchestrator.schedules import Clockwork
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import RecipeBook, load_recipes
from octollm.protocol.connection import probe
from octollm.runtime.arm_role import arm_handler, hand_on, load_arm, uses_model
from octollm.runtime.connect_retry import until_reachable
from octollm.runtime.mending import Mender
from octollm.runtime.model_role import WorkerModelClient
from octollm.runtime.orchestrator_role import Translator, begin, clear, expire, forget, gathered, remind, tick
from octollm.runtime.roles import require_python_role
from octollm.settings.files import recipes_path, schedules_path
from octollm.settings.loader import Settings
from octollm.settings.sections import WorkerSettings
from octollm.supervision import Supervisor
from octollm.topology import ARM, Topic, Topology
from octollm.topology.schedules import Schedule, load_schedules

if TYPE_CHECKING:
    from octollm.runtime.memory_role import ProcessMemory

_log = structlog.get_logger(__name__)
_BEGIN_S = 1.0
"""How late a task that was put off begins at most, while nothing is in its way."""
_KEYS_AT_ONCE = 10_000
_NEED_MEMORY = frozenset({"results", "arm.retriever"})
"""Topics whose roles do not start without memory."""
_TEND_S = 30
"""How often it is looked for what to forget and what memory left unfinished."""
_LINES = 3
"""Transactions of the orchestrator at a time: while Postgres works on one, this process works on the other."""
_NEW_OBJECTS = 10_000
"""So many objects more than were freed make the garbage collector look."""
_ORCHESTRATED = frozenset({"tasks", "steps.done"})
_STORED = _ORCHESTRATED | {"dead"} | _NEED_MEMORY


async def run_roles(
    roles: Sequence[str], settings: Settings, topology: Topology, *, concurrency: int | None, stop: asyncio.Event
) -> None:
    """Until `stop` is set. Waits for Redis and Postgres as long as they are away, and says so.

    Raises SettingsError, TopologyError, RecipeError or SchedulesError before anything has begun.
    """
    # Recipes are read before anything is connected to: a wrong one must not wait for a store to be noticed.
    book = load_recipes(recipes_path(settings), frozenset(topology.arms))
    topics = [topic for role in roles for topic in require_python_role(role, topology)]
    schedules: tuple[Schedule, ...] = ()
    if any(topic.name in _ORCHESTRATED for topic in topics):
        schedules = load_schedules(schedules_path(settings), topology.ingest.tenants)
    async with AsyncExitStack() as exits:
        process = _Process(settings, topology, exits)
        if any(topic.name.startswith(ARM) and uses_model(load_arm(topic)) for topic in topics):
            process.mind()  # wrong settings of models, too, are said before anything is connected to
        server = exits.enter_context(MetricsServer(settings.worker.metrics_listen, process.reasons, process.supervisor))
        _log.info("starting", roles=list(roles), consumer=process.consumer, metrics=server.address)
        if not await process.connect(topics, stop):
            return
        await process.start(topics, book, schedules, concurrency)
        _settle()
        _log.info("ready", roles=list(roles))
        try:
            await process.supervisor.run_until(stop)
        except WorkerError:
            await process.worker.stop(0)
            raise
        _log.info("stopping: no new messages, what runs may end", drain_s=settings.worker.drain_s)
        process.against = ["stopping"]
        await process.worker.stop(settings.worker.drain_s)
    _log.info("stopped", roles=list(roles))


def _settle() -> None:
    """Spare the garbage collector what lives as long as the process, and let it look less often.

    Hardly anything here is a circle; looking for them took a tenth of a busy orchestrator's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


def fuse_rule(settings: WorkerSettings, topology: Topology) -> CircuitBreakerRule:
    """Where several tenants may send, one tenant's messages alone must not stop an arm for the others."""
    tenants = min(2, len(topology.ingest.tenants))
    return CircuitBreakerRule(settings.circuit_breaker_tasks, tenants, settings.circuit_breaker_cooldown_s)


class _Process:
    """What the roles of one process share."""

    def __init__(self, settings: Settings, topology: Topology, exits: AsyncExitStack) -> None:
        self._settings = settings
        self._topology = topology
        self._exits = exits
        self._pool: Pool | None = None
        self._mind: WorkerModelClient | None = None
        self._opening = asyncio.Lock()
        self.supervisor = Supervisor()
        exits.push_async_callback(self.supervisor.stop)
        self.consumer = settings.worker.consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        redis = settings.redis
        rule = fuse_rule(settings.worker, topology)
        self.worker = Worker(redis.url, redis.connect_timeout_s, topology, self.consumer, self.supervisor, rule)
        self.against: list[str] = ["starting"]

    def reasons(self) -> list[str]:
        """What speaks against being ready; asked by the metrics server's thread."""
        return [
            *self.against,
            *([self.supervisor.failure] if self.supervisor.failure is not None else []),
            *(
                f"fused: {topic} is not worked on here, since its handler broke on everything; see the log"
                for topic in self.worker.fused()
            ),
        ]

    async def connect(self, topics: Sequence[Topic], stop: asyncio.Event) -> bool:
        """Wait for the stores; False when told to stop meanwhile."""
        redis, dsn = self._settings.redis, self._settings.postgres.dsn
        self.against = ["Redis cannot be reached"]
        if await until_reachable("Redis", redis.url, lambda: probe(redis.url, redis.connect_timeout_s), stop) is None:
            return False
        if any(topic.name in _STORED for topic in topics):
            self.against = ["Postgres cannot be reached"]

            async def ready() -> bool:
                await migrate(dsn)
                return True

            if await until_reachable("Postgres", dsn, ready, stop) is None:
                return False
        return True

    async def start(
        self, topics: Sequence[Topic], book: RecipeBook, schedules: Sequence[Schedule], concurrency: int | None
    ) -> None:
        """Register every handler, then read."""
        names = {topic.name for topic in topics}
        translator = Translator(self._topology, self._settings.orchestrator.status_ttl_s)
        orchestrator = await self._orchestrator(book) if names & _ORCHESTRATED else None
        gatherers = {"dead": await self._gather(Archive(await self.pool()).handle)} if "dead" in names else {}
        if orchestrator is not None:
            gatherers["tasks"] = gatherers["steps.done"] = await self._gather(orchestrator.handle, _LINES)
        memory = await self._memory() if names & _NEED_MEMORY else None
        if memory is not None and "results" in names:
            gatherers["results"] = await self._gather(memory.index)
        for topic in topics:
            for lane in self._topology.lanes:
                if topic.name.startswith(ARM):
                    onward = hand_on(self._topology, lane)
                    handler = arm_handler(topic, lane, self.consumer, self.pool, self.mind, memory, onward)
                else:
                    handler = gathered(gatherers[topic.name], translator, topic, lane, self.consumer)
                self.worker.add(topic, lane, handler, concurrency)
        await self.worker.start()
        self.against = []
        if orchestrator is not None:
            await self._tickers(orchestrator, translator)
            await self._clock(schedules)
        if memory is not None and "results" in names:
            self._tick(_TEND_S, memory.tend, "a look for what memory is to forget or to finish")

    async def pool(self) -> Pool:
        """Connections to Postgres, opened with the first need of one."""
        async with self._opening:
            if self._pool is None:
                self._pool = await open_pool(self._settings.postgres.dsn, self._settings.postgres.pool_size)
                self._exits.push_async_callback(self._pool.close)
            return self._pool

    def mind(self) -> WorkerModelClient:
        """What asks models, made with the first arm that uses_model."""
        if self._mind is None:
            self._mind = WorkerModelClient(self._settings.models, self.pool)
            self._exits.push_async_callback(self._mind.close)
        return self._mind

    async def _orchestrator(self, book: RecipeBook) -> Orchestrator:
        return Orchestrator(
            await self.pool(),
            book,
            self._settings.reflex.idempotency_ttl_s,
            arms=self._topology.arms.keys(),
            plans_by_model=expected(self._settings.models.provider, os.environ),
            hand_on=self._settings.handoff.direct,
        )

    async def _memory(self) -> "ProcessMemory":
        # Vectors, models and their libraries weigh as much as a small arm: only who needs them loads them.
        role = importlib.import_module("octollm.runtime.memory_role")
        memory: ProcessMemory = role.ProcessMemory(self._settings, self.pool, self._exits)
        await memory.start()
        return memory

    async def _gather(self, handle: Handle, lines: int = 1) -> Gatherer:
        settings = self._settings.orchestrator
        gatherer = Gatherer(handle, settings.batch_wait_ms, settings.batch_max, lines)
        gatherer.start()
        self._exits.push_async_callback(gatherer.stop)
        return gatherer

    async def _tickers(self, orchestrator: Orchestrator, translator: Translator) -> None:
        every_s, pool, topology = self._settings.orchestrator.reconcile_interval_s, await self.pool(), self._topology
        retention, hand_on = self._settings.retention, self._settings.handoff.direct
        self._tick(every_s, lambda: expire(orchestrator, translator, self.worker), "a look for deadlines")
        self._tick(_BEGIN_S, lambda: begin(orchestrator, translator, self.worker), "a look for tasks put off")
        self._tick(
            every_s, Mender(pool, topology, translator, self.worker, hand_on=hand_on).look, "a look for lost steps"
        )
        cursors = dict.fromkeys(topology.lanes, 0)
        self._tick(every_s, lambda: forget(self.worker, cursors), "a look for names of lost steps")
        self._tick(every_s, lambda: remind(pool, topology, translator, self.worker), "a look for what memory missed")
        self._tick(every_s, lambda: orchestrator.forget_keys(_KEYS_AT_ONCE), "a look for expired keys")
        if retention.finished_days > 0:
            days = retention.finished_days
            self._tick(retention.purge_interval_s, lambda: clear(pool, topology, days), "a look for tasks to purge")

    async def _clock(self, schedules: Sequence[Schedule]) -> None:
        if not schedules:
            return

        async def submit(schedule: Schedule, key: str) -> None:
            await self.worker.submit(schedule.tenant, schedule.body, key)

        clockwork = Clockwork(schedules, await self.pool(), submit)
        self._tick(_BEGIN_S, lambda: clockwork.look(datetime.now(UTC)), "a look at the schedules")

    def _tick(self, every_s: float, work: Callable[[], Awaitable[object]], what: str) -> None:
        self.supervisor.spawn_loop(what, tick(every_s, work, what))
