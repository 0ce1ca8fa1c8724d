"""Runs roles of the topology in this process.

It connects, starts, reports readiness, and drains when it has to stop.
"""

import asyncio
import gc
import importlib
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import structlog

from octollm.batching import Batcher, BatchHandler
from octollm.consumer.circuit_breaker import CircuitBreakerRule
from octollm.consumer.worker import Worker
from octollm.credentials.publisher import KeyPublisher
from octollm.database.migrate import migrate
from octollm.database.pool import Pool, open_pool
from octollm.errors import WorkerError
from octollm.isolation.pool import ProcessPool
from octollm.models.choose import expected
from octollm.observability.metrics import MetricsServer
from octollm.orchestrator.archive import Archive
from octollm.orchestrator.callbacks import CallbackOutbox
from octollm.orchestrator.maintenance import Maintenance
from octollm.orchestrator.messages import MessageBuilder
from octollm.orchestrator.service import Answer, Orchestrator
from octollm.periodic import PeriodicJob, run_periodically
from octollm.plans.recipes import RecipeBook, load_recipes
from octollm.protocol.connection import probe
from octollm.protocol.handoff import Entry
from octollm.protocol.key_registry import KeyRegistry
from octollm.runtime.arm_role import arm_handler, chain_to, load_arm, uses_model
from octollm.runtime.batched_handler import batched_handler, task_of
from octollm.runtime.connect_retry import until_reachable
from octollm.runtime.model_role import WorkerModelClient
from octollm.runtime.roles import require_python_role
from octollm.runtime.store_watch import ASKS, LISTENS, Check, Pace, PostgresCheck, StoreWatch
from octollm.settings.files import callbacks_path, recipes_path, schedules_path
from octollm.settings.loader import Settings
from octollm.settings.redis_url import redis_url
from octollm.settings.sections import WorkerSettings
from octollm.supervision import Supervisor
from octollm.topology import ARM, Topic, Topology
from octollm.topology.callbacks import load_callbacks
from octollm.topology.schedules import Schedule, load_schedules

if TYPE_CHECKING:
    from octollm.runtime.memory_role import ProcessMemory

_log = structlog.get_logger(__name__)
_MEMORY_TOPICS = frozenset({"results", "arm.retriever"})
"""Topics whose roles need memory to start."""
_ORCHESTRATOR_TOPICS = frozenset({"tasks", "steps.done"})
_CALLBACK_TOPICS = _ORCHESTRATOR_TOPICS | {"dead"}
"""Topics whose roles end tasks."""
_POSTGRES_TOPICS = _ORCHESTRATOR_TOPICS | {"dead"} | _MEMORY_TOPICS
_MEMORY_MAINTENANCE_S = 30
_ORCHESTRATOR_PARTITIONS = 3
"""Concurrent transactions of the orchestrator: while Postgres works on one, this process prepares another."""
_GC_THRESHOLD = 10_000
"""Surplus of new objects over freed ones at which the garbage collector runs."""


async def run_roles(
    roles: Sequence[str], settings: Settings, topology: Topology, *, concurrency: int | None, stop: asyncio.Event
) -> None:
    """Run roles until `stop` is set; wait for Redis and Postgres while they are unavailable.

    `concurrency`: of each consumer, instead of the topology's. Raises SettingsError, TopologyError, RecipeError or
    SchedulesError before anything is connected, and WorkerError if background work of this process ends unexpectedly.
    """
    # Files are read first: a wrong recipe must be reported although a store is unavailable.
    book = load_recipes(recipes_path(settings), frozenset(topology.arms))
    topics = [topic for role in roles for topic in require_python_role(role, topology)]
    schedules: tuple[Schedule, ...] = ()
    if any(topic.name in _ORCHESTRATOR_TOPICS for topic in topics):
        schedules = load_schedules(schedules_path(settings), topology.ingest.tenants)
    async with AsyncExitStack() as exits:
        process = _Process(settings, topology, exits)
        if any(topic.name.startswith(ARM) and uses_model(load_arm(topic)) for topic in topics):
            process.model_client()  # reports wrong model settings before anything is connected
        metrics = MetricsServer(settings.worker.metrics_listen, process.not_ready_reasons, process.supervisor)
        server = exits.enter_context(metrics)
        _log.info("starting", roles=list(roles), consumer=process.consumer, metrics=server.address)
        if not await process.connect(topics, stop):
            return
        if not await process.supervisor.finish(process.start(topics, book, schedules, concurrency), stop):
            return
        _tune_gc()
        _log.info("ready", roles=list(roles))
        try:
            await process.supervisor.run_until(stop)
        except WorkerError:
            await process.worker.stop(0, failed=True)
            raise
        _log.info("stopping: no new messages are read, running ones may finish", drain_s=settings.worker.drain_s)
        process.state = "stopping"
        await process.worker.stop(settings.worker.drain_s)
    _log.info("stopped", roles=list(roles))


def _tune_gc() -> None:
    """Exclude long-lived objects from garbage collection, and collect less often.

    Almost nothing here forms reference cycles; looking for them took a tenth of a busy orchestrator's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)


def circuit_breaker_rule(settings: WorkerSettings, topology: Topology) -> CircuitBreakerRule:
    """Return the rule for all consumers.

    With several tenants, failures of one must not stop an arm for the others.
    """
    tenants = min(2, len(topology.ingest.tenants))
    return CircuitBreakerRule(settings.circuit_breaker_tasks, tenants, settings.circuit_breaker_cooldown_s)


class _Process:
    """What the roles of one process share."""

    def __init__(self, settings: Settings, topology: Topology, exits: AsyncExitStack) -> None:
        self._settings = settings
        self._topology = topology
        self._exits = exits
        self._pool: Pool | None = None
        self._model_client: WorkerModelClient | None = None
        self._opening = asyncio.Lock()
        self._isolation = ProcessPool()
        exits.push_async_callback(self._isolation.close)
        self.supervisor = Supervisor()
        exits.push_async_callback(self.supervisor.stop)
        self.consumer = settings.worker.consumer or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._redis_url, timeout_s = redis_url(settings.redis), settings.redis.connect_timeout_s
        rule = circuit_breaker_rule(settings.worker, topology)
        self.worker = Worker(self._redis_url, timeout_s, topology, self.consumer, self.supervisor, rule)
        self._watch = StoreWatch({})
        self.state: str | None = "starting"
        """Why this process is not ready; None: it is."""

    def not_ready_reasons(self) -> list[str]:
        """Return why this process is not ready, as sentences. Called by the metrics server's thread."""
        return [
            *([self.state] if self.state is not None else []),
            *([self.supervisor.failure] if self.supervisor.failure is not None else []),
            *self._watch.reasons(),
            *(
                f"circuit breaker open: {topic} is not worked on here, its handler failed on several tasks; see the log"
                for topic in self.worker.tripped()
            ),
        ]

    async def connect(self, topics: Sequence[Topic], stop: asyncio.Event) -> bool:
        """Wait until the stores that these topics need are reachable; return False if `stop` is set first."""
        redis, dsn = self._settings.redis, self._settings.postgres.dsn
        self.state = "Redis is unavailable"
        reach = partial(probe, self._redis_url, redis.connect_timeout_s)
        if await until_reachable("Redis", redis.url, reach, stop) is None:
            return False
        if any(topic.name in _POSTGRES_TOPICS for topic in topics):
            self.state = "Postgres is unavailable"

            async def migrated() -> bool:
                await migrate(dsn)
                return True

            if await until_reachable("Postgres", dsn, migrated, stop) is None:
                return False
        self.state = "starting: the consumer groups are created once Redis accepts writes"
        return True

    async def start(
        self, topics: Sequence[Topic], book: RecipeBook, schedules: Sequence[Schedule], concurrency: int | None
    ) -> None:
        """Register a handler per topic and lane, start consuming, then start the periodic jobs."""
        names = {topic.name for topic in topics}
        orchestrator = self._settings.orchestrator
        messages = MessageBuilder(
            self._topology,
            orchestrator.status_ttl_s,
            status_result_bytes=orchestrator.status_result_bytes,
            direct_handoff=self._settings.handoff.direct,
        )  # fmt: skip
        jobs: list[PeriodicJob] = []
        callbacks = self._callback_outbox() if names & _CALLBACK_TOPICS else None
        batchers: dict[str, Batcher[Entry, Answer]] = {}
        if names & _ORCHESTRATOR_TOPICS:
            pool, service = await self.pool(), await self._orchestrator(book, messages, callbacks)
            maintenance = Maintenance(service, pool, self._topology, messages, self.worker, schedules)
            retention = self._settings.retention
            jobs += maintenance.jobs(
                orchestrator.reconcile_interval_s, retention.finished_days, retention.purge_interval_s
            )
            jobs += self._publish_keys(pool)
            batchers["tasks"] = self._batcher("orchestrator", service.handle, _ORCHESTRATOR_PARTITIONS)
            batchers["steps.done"] = batchers["tasks"]
        if "dead" in names:
            batchers["dead"] = self._batcher("archive", Archive(await self.pool(), messages, callbacks).handle)
        memory = await self._memory() if names & _MEMORY_TOPICS else None
        if memory is not None and "results" in names:
            batchers["results"] = self._batcher("memory", memory.index)
            jobs.append(PeriodicJob("maintain memory", _MEMORY_MAINTENANCE_S, memory.maintain))
        for topic in topics:
            for lane in self._topology.lanes:
                if topic.name.startswith(ARM):
                    chain = chain_to(self._topology, lane)
                    watch = self.worker.run_watch(lane)
                    handler = arm_handler(
                        topic, lane, self.consumer, self.pool, self.model_client, memory, self._isolation, chain, watch
                    )
                else:
                    handler = batched_handler(batchers[topic.name], topic, lane, self.consumer)
                self.worker.add(topic, lane, handler, concurrency)
        await self.worker.start()
        self._watch_stores(names)
        self.state = None
        for job in jobs:
            self.supervisor.spawn_loop(job.name, run_periodically(job))

    def _watch_stores(self, topics: set[str]) -> None:
        checks: dict[str, tuple[Check, Pace]] = {"Redis": (self.worker.answered, LISTENS)}
        if topics & _POSTGRES_TOPICS:
            postgres = PostgresCheck(self._settings.postgres.dsn)
            checks["Postgres"] = (postgres, ASKS)
            self._exits.callback(postgres.close)
        self._watch = StoreWatch(checks)
        self._watch.start(self.supervisor)

    async def pool(self) -> Pool:
        """Return connections to Postgres, opened when first needed."""
        async with self._opening:
            if self._pool is None:
                self._pool = await open_pool(self._settings.postgres.dsn, self._settings.postgres.pool_size)
                self._exits.push_async_callback(self._pool.close)
            return self._pool

    def model_client(self) -> WorkerModelClient:
        """Return the client of models, created for the first arm that uses one. Raises SettingsError."""
        if self._model_client is None:
            self._model_client = WorkerModelClient(self._settings.models, self.pool)
            self._exits.push_async_callback(self._model_client.close)
        return self._model_client

    def _callback_outbox(self) -> CallbackOutbox:
        endpoints = load_callbacks(callbacks_path(self._settings)).endpoints
        return CallbackOutbox(endpoints, self._settings.callbacks.result_bytes, self._settings.reflex.url)

    async def _orchestrator(
        self, book: RecipeBook, messages: MessageBuilder, callbacks: CallbackOutbox | None
    ) -> Orchestrator:
        return Orchestrator(
            await self.pool(),
            book,
            messages,
            self._settings.reflex.idempotency_ttl_s,
            arms=self._topology.arms.keys(),
            plans_by_model=expected(self._settings.models.provider, os.environ),
            callbacks=callbacks,
        )

    def _publish_keys(self, pool: Pool) -> list[PeriodicJob]:
        registry = KeyRegistry(self._redis_url, self._settings.redis.connect_timeout_s)
        self._exits.push_async_callback(registry.close)
        return KeyPublisher(pool, registry).jobs()

    async def _memory(self) -> "ProcessMemory":
        # Vectors, models and their libraries take as much memory as a small arm: only roles that need them load them.
        role = importlib.import_module("octollm.runtime.memory_role")
        memory: ProcessMemory = role.ProcessMemory(self._settings, self.pool, self._exits)
        await memory.start()
        return memory

    def _batcher(self, name: str, handle: BatchHandler[Entry, Answer], partitions: int = 1) -> Batcher[Entry, Answer]:
        settings = self._settings.orchestrator
        batcher: Batcher[Entry, Answer] = Batcher(
            handle, task_of, wait_ms=settings.batch_wait_ms, max_size=settings.batch_max, partitions=partitions
        )
        batcher.start(self.supervisor, name)
        self._exits.push_async_callback(batcher.stop)
        return batcher
