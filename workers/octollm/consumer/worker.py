"""All consumers of one process: one broker, one client for the scripts, one lease thread for each group.

The runtime adds a handler per topic, starts, and stops. It never sees redis or FastStream.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping, Sequence

import structlog
from faststream.redis import RedisBroker

from octollm.consumer.circuit_breaker import NEVER, CircuitBreakerRule
from octollm.consumer.consumer import Consumer, Handler
from octollm.consumer.leases import Leases
from octollm.errors import StoreUnavailableError
from octollm.protocol.backoff import TRANSIENT_REDIS_ERRORS, Backoff
from octollm.protocol.connection import connect
from octollm.protocol.control import listen
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Handoff
from octollm.protocol.operations import Fields, Operation
from octollm.protocol.outcomes import REDIS_ERRORS, WAITING
from octollm.supervision import Supervisor
from octollm.topology import LaneKeys, Topic, Topology, ingest_stream

_LONGEST_SLEEP_S = 1.0
"""A retry that another worker schedules meanwhile must not wait much longer than it asked for."""
_log = structlog.get_logger(__name__)


class Worker:
    """The bus side of one process."""

    def __init__(
        self,
        url: str,
        connect_timeout_s: float,
        topology: Topology,
        consumer: str,
        supervisor: Supervisor,
        fuse: CircuitBreakerRule = NEVER,
    ) -> None:
        """`connect_timeout_s`: longest that one attempt to connect may take. `consumer`: name of this process in every
        consumer group. `supervisor` owns every loop and thread that `start` begins.
        """
        self._supervisor = supervisor
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._topology = topology
        self._name = consumer
        self._fuse = fuse
        self._client = connect(url, connect_timeout_s)
        log = logging.getLogger("octollm.faststream")
        self._broker = RedisBroker(url, apply_types=False, logger=log, socket_connect_timeout=connect_timeout_s)
        self._handoffs = {
            lane: Handoff(self._client, lane, "", consumer, Fairness(topology, lane)) for lane in topology.lanes
        }
        """One for each lane: a handoff hashes every script when it is made."""
        self._leases: dict[str, Leases] = {}
        self._consumers: list[Consumer] = []
        self._loops: list[asyncio.Task[None]] = []
        """Move what is due, and listen."""

    def add(self, topic: Topic, lane: str, handler: Handler, concurrency: int | None = None) -> None:
        """A consumer of one topic in one lane, with the topic's concurrency unless another is given."""
        if topic.group not in self._leases:
            # One thread for all topics of the group, as often as the most impatient of them asks.
            heartbeat_s = min(one.heartbeat_s for one in self._topology.topics.values() if one.group == topic.group)
            self._leases[topic.group] = Leases(self._url, topic.group, self._name, heartbeat_s)
        leases = self._leases[topic.group]
        slots = concurrency or topic.concurrency
        consumer = Consumer(
            self._client,
            leases,
            topic,
            lane,
            self._name,
            handler,
            slots,
            self._supervisor,
            self._handoffs[lane].fairness,
            self._fuse,
        )
        self._consumers.append(consumer)

    async def start(self) -> None:
        """Create groups and begin to read. Redis has to be reachable; raises StoreUnavailableError otherwise."""
        try:
            await self._start()
        except BaseException as error:
            await self.stop(0)
            if isinstance(error, TRANSIENT_REDIS_ERRORS):
                raise StoreUnavailableError(f"Redis: {error}") from error
            raise

    async def _start(self) -> None:
        for leases in self._leases.values():
            leases.start(self._supervisor)
        for consumer in self._consumers:
            await consumer.start(self._broker)
        await self._broker.start()
        spawn, lanes = self._supervisor.spawn_loop, self._topology.lanes
        self._loops = [spawn(f"promote {lane}", self._promote(lane)) for lane in lanes]
        self._loops.append(spawn("listen", listen(self._url, self._connect_timeout_s, lanes, self._cancel)))

    async def stop(self, drain_s: float) -> None:
        """Stop reading, give back what has not begun, wait up to `drain_s` for what runs, leave the groups."""
        await self._supervisor.end(self._loops)
        # uvloop raises a RuntimeError for a connection that broke a moment ago.
        with contextlib.suppress(*TRANSIENT_REDIS_ERRORS, RuntimeError):
            await self._broker.stop()
        await asyncio.gather(*(consumer.stop(drain_s) for consumer in self._consumers))
        for leases in self._leases.values():
            await asyncio.to_thread(leases.stop)
        await self._client.aclose()

    def fused(self) -> list[str]:
        """Topics that are not worked on here because a fuse is out. From any thread."""
        return sorted({one.topic for one in self._consumers if one.fused})

    async def publish(self, lane: str, operations: Sequence[Operation]) -> None:
        """Write what follows from no entry. Raises StoreUnavailableError while Redis is away."""
        try:
            await self._handoff(lane).publish(operations)
        except TRANSIENT_REDIS_ERRORS as error:
            raise StoreUnavailableError(f"Redis: {error}") from error

    async def submit(self, tenant: str, body: bytes, key: str) -> None:
        """Put a submission on its tenant's ingest stream, as any producer does. Raises StoreUnavailableError while
        Redis is
        away.
        """
        try:
            await self._client.xadd(ingest_stream(tenant), {"body": body, "idempotency_key": key})
        except TRANSIENT_REDIS_ERRORS as error:
            raise StoreUnavailableError(f"Redis: {error}") from error

    async def reach(self) -> None:
        """Raises StoreUnavailableError while Redis is away."""
        try:
            await self._client.ping()
        except TRANSIENT_REDIS_ERRORS as error:
            raise StoreUnavailableError(f"Redis: {error}") from error

    async def in_flight(self, lane: str, in_flight: str, target: str, *, claim: bool) -> bool:
        """Whether a step's latest message still exists, see `Handoff.in_flight`.

        Raises StoreUnavailableError while Redis is unavailable.
        """
        try:
            return await self._handoff(lane).in_flight(in_flight, target, claim=claim)
        except TRANSIENT_REDIS_ERRORS as error:
            raise StoreUnavailableError(f"Redis: {error}") from error

    async def republish(self, lane: str, in_flight: str, target: str, fields: Fields) -> bool:
        """Send a step's message again if it is nowhere. Raises StoreUnavailableError while Redis is away."""
        try:
            return await self._handoff(lane).republish(in_flight, target, fields)
        except TRANSIENT_REDIS_ERRORS as error:
            raise StoreUnavailableError(f"Redis: {error}") from error

    async def prune(self, lane: str, cursor: int, most: int) -> tuple[int, int]:
        """Forget in-flight index whose message is nowhere any more, as `Handoff.prune` does.

        Raises StoreUnavailableError while Redis is away.
        """
        try:
            return await self._handoff(lane).prune(cursor, most)
        except TRANSIENT_REDIS_ERRORS as error:
            raise StoreUnavailableError(f"Redis: {error}") from error

    async def oldest_ms(self, topic: Topic) -> int | None:
        """When the oldest entry came (ms since 1970) that still lies on a topic, in any lane; None: there is none.

        Raises StoreUnavailableError while Redis is away.
        """
        found = []
        try:
            for stream in (one for lane in self._topology.lanes for one in LaneKeys(lane).streams(topic)):
                entries = await self._client.xrange(stream, count=1)
                found += [int(str(entry, "ascii").partition("-")[0]) for entry, _ in entries or ()]  # type: ignore[arg-type]  # bytes by our decoding
        except TRANSIENT_REDIS_ERRORS as error:
            raise StoreUnavailableError(f"Redis: {error}") from error
        return min(found, default=None)

    def _handoff(self, lane: str) -> Handoff:
        return self._handoffs[lane]

    def _count_waiting(self, lane: str, waiting: Mapping[str, int]) -> None:
        for stream, count in waiting.items():
            _, topic, priority = stream.split(":")
            WAITING.labels(lane, topic, priority).set(count)

    async def _cancel(self, lane: str, task: str) -> None:
        for consumer in self._consumers:
            if consumer.handoff.keys.lane == lane:
                await consumer.cancel(task)

    async def _promote(self, lane: str) -> None:
        """Move due retries on and let in what waits, for ever."""
        handoff, pause = self._handoff(lane), Backoff()
        while True:
            try:
                moved, _ = await handoff.promote()
                self._count_waiting(lane, handoff.waiting)
                pause.over()
            except TRANSIENT_REDIS_ERRORS as error:
                REDIS_ERRORS.labels("schedule", "promote").inc()
                _log.warning("cannot look for due retries", error=str(error))
                await pause.wait()
                continue
            if not moved:
                await asyncio.sleep(_LONGEST_SLEEP_S * random.uniform(0.5, 1.0))  # noqa: S311  spreads a pool's looks
