"""All consumers of one process.

They share one broker, one client for the scripts, and one lease thread for each consumer group.

The runtime adds a handler per topic, starts, and stops. It never sees redis or FastStream.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping, Sequence

import structlog
from faststream.redis import RedisBroker

from octollm.consumer.circuit_breaker import NEVER_OPENS, CircuitBreakerRule
from octollm.consumer.consumer import Consumer
from octollm.consumer.executor import Handler
from octollm.consumer.leases import LeaseRenewer
from octollm.protocol.backoff import REDIS_FAILURES, Backoff, raise_if_refused, store_errors, until_answered
from octollm.protocol.connection import connect
from octollm.protocol.control import listen
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Handoff
from octollm.protocol.kinds import publish, published_version, version_of
from octollm.protocol.operations import Fields, Operation
from octollm.protocol.outcomes import MESSAGES, QUEUED_MESSAGES, REDIS_ERRORS, Outcome
from octollm.protocol.run_watch import RedisClock, RunWatch
from octollm.supervision import Supervisor
from octollm.topology import ARM, LaneKeys, Topic, Topology, ingest_stream

_LONGEST_SLEEP_S = 1.0
"""A retry that another worker schedules meanwhile must not wait much longer than it asked for."""
_FEW_EVENTS = 1000
"""Kept of an event stream while Redis is running full: enough for a client that reconnects."""
_log = structlog.get_logger(__name__)


class Worker:
    """The Redis side of one process: its consumers, and what else it writes to and reads from Redis."""

    def __init__(
        self,
        url: str,
        connect_timeout_s: float,
        topology: Topology,
        name: str,
        supervisor: Supervisor,
        circuit_breaker: CircuitBreakerRule = NEVER_OPENS,
    ) -> None:
        """`connect_timeout_s`: longest that one attempt to connect may take.

        `name`: of this process in every consumer group. `supervisor` owns every loop and thread that `start` begins.
        """
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._topology = topology
        self._name = name
        self._supervisor = supervisor
        self._circuit_breaker = circuit_breaker
        self._client = connect(url, connect_timeout_s)
        log = logging.getLogger("octollm.faststream")
        self._broker = RedisBroker(url, apply_types=False, logger=log, socket_connect_timeout=connect_timeout_s)
        self._fairness = {lane: Fairness(topology, lane) for lane in topology.lanes}
        self._handoffs = {
            lane: Handoff(self._client, lane, "", name, fairness) for lane, fairness in self._fairness.items()
        }
        """One for each lane: making a hand-off hashes every script."""
        self._clock = RedisClock()
        self._watches = {lane: RunWatch(self._client, lane, self._clock) for lane in topology.lanes}
        self._promoted = asyncio.Event()
        """Set with each answer, or failure, of a loop that promotes."""
        self._unavailable = False
        """Whether the last one was a failure."""
        self._leases: dict[str, LeaseRenewer] = {}
        self._consumers: list[Consumer] = []
        self._loops: list[asyncio.Task[None]] = []
        """The loops that promote, and the one that listens on the control channel."""

    def add(self, topic: Topic, lane: str, handler: Handler, concurrency: int | None = None) -> None:
        """Add a consumer of one topic in one lane. Without `concurrency` the topic's own applies.

        For the handler of an arm, it looks up the runs of what is read; see `run_watch`.
        """
        if topic.group not in self._leases:
            # One thread for all topics of the group, as often as the most impatient of them asks.
            heartbeat_s = min(one.heartbeat_s for one in self._topology.topics.values() if one.group == topic.group)
            self._leases[topic.group] = LeaseRenewer(self._url, topic.group, self._name, heartbeat_s)
        self._consumers.append(
            Consumer(
                self._client,
                self._leases[topic.group],
                topic,
                lane,
                self._name,
                handler,
                concurrency or topic.concurrency,
                self._supervisor,
                self._fairness[lane],
                self._circuit_breaker,
                self._watches[lane] if topic.name.startswith(ARM) else None,
            )
        )

    def run_watch(self, lane: str) -> RunWatch:
        """Return what tells an arm of this process in this lane whether a step's run has ended."""
        return self._watches[lane]

    async def start(self) -> None:
        """Create the groups and begin to read.

        Waits while Redis is unavailable or accepts no writes. Stops what it has begun when it is cancelled or a part
        cannot start. Raises StoreRefusedError.
        """
        try:
            await self._start()
        except BaseException as error:
            await self.stop(0, failed=not isinstance(error, asyncio.CancelledError))
            raise

    async def _start(self) -> None:
        seconds, microseconds = await until_answered(self._client.time, "tell the time")
        self._clock.sync(seconds * 1000 + microseconds // 1000)
        for leases in self._leases.values():
            leases.start(self._supervisor)
        for consumer in self._consumers:
            await consumer.start(self._broker)
        await self._broker.start()
        spawn, lanes = self._supervisor.spawn_loop, self._topology.lanes
        self._loops = [spawn(f"promote {lane}", self._promote(lane)) for lane in lanes]
        watches = list(self._watches.values())
        self._loops.append(spawn("listen", listen(self._url, self._connect_timeout_s, watches, self._stop_run)))

    async def stop(self, drain_s: float, *, failed: bool = False) -> None:
        """Stop reading, give back what has not begun, wait up to `drain_s` for handlers, leave the groups.

        `failed`: see `Consumer.stop`.
        """
        await self._supervisor.end(self._loops)
        # uvloop raises a RuntimeError for a connection that broke a moment ago.
        with contextlib.suppress(*REDIS_FAILURES, RuntimeError):
            await self._broker.stop()
        await asyncio.gather(*(consumer.stop(drain_s, failed=failed) for consumer in self._consumers))
        for leases in self._leases.values():
            await asyncio.to_thread(leases.stop)
        await self._client.aclose()

    def tripped(self) -> list[str]:
        """Names of topics that are not worked on here because their circuit breaker is open.

        Any thread may ask.
        """
        return sorted({one.topic for one in self._consumers if one.tripped})

    async def publish(self, lane: str, *groups: Sequence[Operation]) -> None:
        """Apply operations that finish no entry, see `Handoff.publish`. Raises StoreUnavailableError."""
        with store_errors():
            await self._handoffs[lane].publish(*groups)

    async def submit(self, tenant: str, body: bytes, key: str) -> None:
        """Put a submission (JSON) with its idempotency key on its tenant's ingest stream.

        Raises StoreUnavailableError.
        """
        with store_errors():
            await self._client.xadd(ingest_stream(tenant), {"body": body, "idempotency_key": key})

    async def publish_kinds(self, schemas: Mapping[str, bytes], *, replace: bool) -> bool:
        """Publish the schemas of all kinds, see `octollm.protocol.kinds`.

        Return whether that changed anything. `replace`: also if others are published. Raises StoreUnavailableError.
        """
        with store_errors():
            known = await published_version(self._client)
            if known == version_of(schemas) or (known is not None and not replace):
                return False
            await publish(self._client, schemas)
            return True

    async def reach(self) -> None:
        """Raise StoreUnavailableError unless Redis answers."""
        with store_errors():
            await self._client.ping()

    async def answered(self) -> None:
        """Return when Redis has answered this process once more.

        Sends nothing itself unless the last request failed: the loops that promote ask at least once a second. Raises
        StoreUnavailableError if Redis is unavailable; while Redis hangs, it waits until it is cancelled.
        """
        if not self._unavailable:
            self._promoted.clear()
            await self._promoted.wait()
        if self._unavailable:
            await self.reach()

    async def in_flight(self, lane: str, in_flight: str, target: str, *, claim: bool) -> bool:
        """Whether a step's latest message still exists, see `Handoff.in_flight`.

        Raises StoreUnavailableError.
        """
        with store_errors():
            return await self._handoffs[lane].in_flight(in_flight, target, claim=claim)

    async def republish(self, lane: str, in_flight: str, target: str, fields: Fields) -> bool:
        """Publish a step's message again unless one exists; whether it did. Raises StoreUnavailableError."""
        with store_errors():
            return await self._handoffs[lane].republish(in_flight, target, fields)

    async def executing(self, lane: str, in_flight: Sequence[str]) -> int:
        """How many of these steps a worker works on, see `Handoff.executing`. Raises StoreUnavailableError."""
        with store_errors():
            return await self._handoffs[lane].executing(in_flight)

    async def prune(self, lane: str, cursor: int, most: int) -> tuple[int, int]:
        """Remove dead names from the in-flight index, see `Handoff.prune`. Raises StoreUnavailableError."""
        with store_errors():
            return await self._handoffs[lane].prune(cursor, most)

    async def memory_share(self) -> float:
        """Return the share of Redis' memory limit that is used, 0.0 if there is no limit.

        Raises StoreUnavailableError.
        """
        with store_errors():
            info = await self._client.info("memory")
        # Redis does not count its buffers for replicas and the append-only file against the limit.
        used = int(info["used_memory"]) - int(info.get("mem_not_counted_for_evict", 0))
        limit = int(info.get("maxmemory", 0))
        return used / limit if limit else 0.0

    async def evict(self, lane: str, tasks: Sequence[str]) -> int:
        """Delete the statuses of finished tasks, see `Handoff.evict`. Raises StoreUnavailableError."""
        with store_errors():
            return await self._handoffs[lane].evict(tasks)

    async def trim_events(self) -> None:
        """Shorten the event stream of each lane to `_FEW_EVENTS`. Raises StoreUnavailableError."""
        with store_errors():
            for lane in self._topology.lanes:
                await self._client.xtrim(LaneKeys(lane).events, maxlen=_FEW_EVENTS)

    async def oldest_ms(self, topic: Topic) -> int | None:
        """When the oldest entry arrived that is still on a topic, in any lane.

        The time is in ms since 1970; None means that there is no entry.

        Raises StoreUnavailableError.
        """
        found = []
        with store_errors():
            for stream in (one for lane in self._topology.lanes for one in LaneKeys(lane).streams(topic)):
                entries = await self._client.xrange(stream, count=1)
                found += [int(str(entry, "ascii").partition("-")[0]) for entry, _ in entries or ()]  # type: ignore[arg-type]  # bytes by our decoding
        return min(found, default=None)

    def _show_queued(self, lane: str, queued: Mapping[str, int]) -> None:
        for stream, count in queued.items():
            _, topic, priority = stream.split(":")
            QUEUED_MESSAGES.labels(lane, topic, priority).set(count)

    async def _stop_run(self, lane: str, run: str) -> None:
        for consumer in self._consumers:
            if consumer.handoff.keys.lane == lane:
                await consumer.stop_run(run)

    async def _promote(self, lane: str) -> None:
        """Publish due retries, and dispatch what waits in tenant queues, until cancelled.

        Raises StoreRefusedError, which ends the process: its steps would wait for ever.
        """
        handoff, backoff = self._handoffs[lane], Backoff()
        while True:
            try:
                promoted, _ = await handoff.promote()
                self._unavailable = False
                self._promoted.set()
                self._clock.sync(handoff.redis_ms)
                self._show_queued(lane, handoff.queued)
                if handoff.malformed:
                    MESSAGES.labels("schedule", Outcome.DEAD).inc(handoff.malformed)
                    _log.error("messages that cannot be read became dead letters", lane=lane, count=handoff.malformed)
                backoff.reset()
            except REDIS_FAILURES as error:
                raise_if_refused(error, f"look for due retries in lane {lane}")
                self._unavailable = True
                self._promoted.set()
                REDIS_ERRORS.labels("schedule", "promote").inc()
                _log.warning("cannot look for due retries", error=str(error))
                await backoff.wait()
                continue
            if not promoted:
                await asyncio.sleep(_LONGEST_SLEEP_S * random.uniform(0.8, 1.0))  # noqa: S311  spreads a pool's calls
