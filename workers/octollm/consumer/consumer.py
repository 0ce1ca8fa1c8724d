"""One consumer of one topic in one lane, put together.

The module starts and stops it, and stops ended runs.

Its parts: `intake` admits entries, `pool` owns them, `executor` runs the handler, `committer` commits what it led to.
docs/delivery.md follows one entry through them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Container
from functools import partial

import redis.asyncio
import structlog
from faststream.redis import RedisBroker

from octollm.consumer.circuit_breaker import NEVER_OPENS, CircuitBreaker, CircuitBreakerRule
from octollm.consumer.committer import Committer
from octollm.consumer.delivery import State
from octollm.consumer.executor import Executor, Handler
from octollm.consumer.intake import Intake
from octollm.consumer.leases import LeaseRenewer
from octollm.consumer.pool import DeliveryPool
from octollm.consumer.reader import create_groups, subscribe
from octollm.consumer.reclaimer import Reclaimer
from octollm.consumer.releaser import Releaser
from octollm.protocol.backoff import REDIS_FAILURES, until_answered
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Entry, Handoff, LeaseStatus
from octollm.protocol.operations import DeliveryKey
from octollm.protocol.outcomes import Outcome
from octollm.protocol.run_watch import RunWatch
from octollm.supervision import Supervisor
from octollm.topology import LaneKeys, Topic

_RELEASE_S = 5.0
"""How long a stopping consumer tries to give back its entries, and to leave its groups."""
_CANCEL_S = 5.0
"""How long a stopping consumer waits for handlers that it has cancelled."""
_PAGE = 1000
"""Pending entries that one look shows."""
_log = structlog.get_logger(__name__)


class Consumer:
    """A consumer of one topic in one lane: `start` it once, later `stop` it."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        leases: LeaseRenewer,
        topic: Topic,
        lane: str,
        name: str,
        handler: Handler,
        concurrency: int,
        supervisor: Supervisor,
        fairness: Fairness | None = None,
        circuit_breaker: CircuitBreakerRule = NEVER_OPENS,
        watch: RunWatch | None = None,
    ) -> None:
        """`leases`: of the topic's group, started by the caller. `name`: of the consumer in its group.

        `concurrency`: how many entries may run at once. `fairness`: see `Handoff`.
        `watch`: looks up the runs of what is read, for the handler.
        """
        self.name = name
        self.handoff = Handoff(client, lane, topic.group, name, fairness)
        self._client = client
        self._topic = topic
        self._keys = LaneKeys(lane)
        self._streams = self._keys.streams(topic)
        self._supervisor = supervisor
        self._pool = DeliveryPool(topic, self._keys, concurrency, leases)
        self._breaker = CircuitBreaker(circuit_breaker, topic.name)
        self._committer = Committer(self.handoff, topic.name, self._pool, supervisor)
        self._releaser = Releaser(self.handoff, topic.name, self._pool, supervisor)
        self._executor = Executor(
            topic.name, handler, self._pool, self._committer, self._releaser, self._breaker, supervisor
        )
        self._intake = Intake(topic, self._pool, self._executor, self._releaser, self._breaker, supervisor)
        self._reclaimer = Reclaimer(client, self.handoff, topic, self._streams, self._intake)
        self._watch = watch
        self._reclaiming: asyncio.Task[None] | None = None

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._topic.name

    @property
    def tripped(self) -> bool:
        """Whether its circuit breaker is open or half-open. Any thread may ask."""
        return self._breaker.tripped

    async def start(self, broker: RedisBroker) -> None:
        """Create the groups and register the reader with `broker`, which the caller starts afterwards.

        Waits while Redis is unavailable or accepts no writes. Raises StoreRefusedError.
        """
        groups = partial(create_groups, self._client, self._streams, self._topic.group)
        await until_answered(groups, f"create the consumer groups of {self.topic}")
        self._committer.start()
        self._releaser.start()
        self._reclaiming = self._supervisor.spawn_loop(f"claim {self.topic}", self._reclaimer.run())
        look_up = None if self._watch is None else self._watch.look_up
        subscribe(
            broker, self._supervisor, self._intake, self.topic, self._streams, self._topic.group, self.name, look_up
        )

    async def stop(self, drain_s: float, *, failed: bool = False) -> None:
        """Give back what has not begun, wait up to `drain_s` for handlers that run, then leave the groups.

        Call it after the broker has stopped reading. A handler that runs longer is cancelled and its entry given back,
        which charges nothing. `failed`: this process stops because something in it broke; what runs may be the cause,
        so it stays pending and its next delivery is charged, as after a crash.
        """
        if self._reclaiming is not None:
            await self._supervisor.end([self._reclaiming])
        await self._intake.close()
        self._releaser.add(self._pool.in_states({State.WAITING_ALONE}), Outcome.RELEASED)
        await self._release_unstarted()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._pool.until_empty(), timeout=drain_s)
        stuck = set() if failed else await self._executor.release_all(_CANCEL_S)
        if not failed:
            await self._release_unstarted(stuck)
        await self._executor.close(_CANCEL_S)
        await self._intake.abort()
        await self._releaser.stop(_RELEASE_S)
        await self._committer.stop()
        self._pool.abandon_all()
        self._breaker.reset()
        try:
            await asyncio.wait_for(self.handoff.leave_group(self._streams), timeout=_RELEASE_S)
        except REDIS_FAILURES as error:
            _log.warning("could not leave the consumer group", topic=self.topic, error=str(error))

    async def stop_run(self, run: str) -> None:
        """Stop the handlers of a run (`<task>.<run>`) at once if Redis says that it has ended."""
        leases = self._pool.handled_steps(run)
        if leases:
            for lease, status in zip(leases, await self.handoff.renew(leases), strict=True):
                if status is LeaseStatus.RUN_ENDED:
                    self._pool.stop(lease, status)

    async def _release_unstarted(self, stuck: Container[DeliveryKey] = ()) -> None:
        """Give back what Redis says this consumer holds and nobody here works on.

        That includes what a cut-off read left.

        `stuck`: deliveries whose handlers still run, although they have left the pool.
        """
        try:
            async with asyncio.timeout(_RELEASE_S):
                pending = {(entry.stream, entry.id, entry.delivery): entry async for entry in self._pending()}
        except REDIS_FAILURES as error:
            _log.warning("unstarted entries stay pending", topic=self.topic, error=str(error))
            return
        held = self._pool, self._releaser, stuck
        self._releaser.add_entries(
            [entry for key, entry in pending.items() if not any(key in holder for holder in held)]
        )

    async def _pending(self) -> AsyncIterator[Entry]:
        """Every entry that Redis says this consumer holds, without its fields. Raises RedisError."""
        for stream in self._streams:
            after = "-"
            while True:
                page = await self._client.xpending_range(
                    stream, self._topic.group, min=after, max="+", count=_PAGE, consumername=self.name
                )
                for one in page:
                    entry = str(one["message_id"], "ascii")  # type: ignore[arg-type]  # bytes by our decoding
                    yield Entry(stream, entry, int(one["times_delivered"]), {})
                    after = f"({entry}"
                if len(page) < _PAGE:
                    break
