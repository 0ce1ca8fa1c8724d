"""Decides which entries begin here.

It handles those that were read, and those that were reclaimed from other workers.

What does not fit is given back at once, uncharged. The reader and the reclaimer ask here how much they may bring.
"""

import asyncio
from collections.abc import Sequence

import structlog

from octollm.consumer.circuit_breaker import CircuitBreaker
from octollm.consumer.delivery import Delivery, State
from octollm.consumer.executor import Executor
from octollm.consumer.pool import DeliveryPool
from octollm.protocol.backoff import TRANSIENT_REDIS_ERRORS, Backoff
from octollm.protocol.handoff import Entry, Handoff, LeaseStatus
from octollm.protocol.operations import Lease
from octollm.protocol.outcomes import MESSAGES, Outcome
from octollm.supervision import Supervisor

_log = structlog.get_logger(__name__)


class Intake:
    """The entrance of one consumer."""

    def __init__(
        self,
        topic: str,
        handoff: Handoff,
        pool: DeliveryPool,
        executor: Executor,
        breaker: CircuitBreaker,
        supervisor: Supervisor,
    ) -> None:
        self._topic = topic
        self._handoff = handoff
        self._pool = pool
        self._executor = executor
        self._breaker = breaker
        self._supervisor = supervisor
        self._closed = False
        self._isolated: dict[asyncio.Task[None], list[Delivery]] = {}
        """Tasks that run reclaimed entries alone, with those entries."""
        self._releasing: set[asyncio.Task[None]] = set()

    async def capacity(self) -> int:
        """Wait until at least one entry may begin here; how many may."""
        return await self._breaker.permits(await self._pool.capacity())

    def reclaim_limit(self) -> int:
        """How many entries of other workers may be reclaimed at once."""
        return 1 if self._breaker.tripped else self._pool.size

    async def admit(self, entries: Sequence[Entry]) -> None:
        """Begin as many of the entries that were read as there is capacity for, and give back the others."""
        free = 0 if self._closed else self._pool.free()
        if self._breaker.tripped:
            free = int(free > 0 and self._breaker.try_acquire())
        if admitted := entries[:free]:
            self._executor.submit(self._pool.admit(admitted))
        if surplus := entries[free:]:
            await self._give_back(surplus)

    async def admit_reclaimed(self, entries: Sequence[Entry]) -> None:
        """Begin reclaimed entries; returns when the next ones may be reclaimed.

        An entry that was released before any handler began takes an ordinary slot. Any other may have killed its
        worker: it runs alone, so that nothing else is charged if it kills this process, too.
        """
        unstarted: list[Entry] = []
        suspect: list[Entry] = []
        surplus: list[Entry] = []
        free = self._pool.free()
        for entry in entries:
            if not self._breaker.try_acquire():
                surplus.append(entry)
            elif entry.delivery == 1 and len(unstarted) < free:
                unstarted.append(entry)
            else:
                suspect.append(entry)
        if surplus:
            await self._give_back(surplus)
        if unstarted:
            self._executor.submit(self._pool.admit(unstarted))
        if suspect:
            _log.info("reclaimed entries", topic=self._topic, entries=[entry.id for entry in suspect])
            deliveries = self._pool.admit_waiting_alone(suspect)
            # A task of its own: the reclaimer ends before what it has brought.
            task = self._supervisor.spawn_task(f"isolate {self._topic}", self._run_alone(deliveries))
            self._isolated[task] = deliveries
            task.add_done_callback(self._isolated.pop)
            await asyncio.wait([task])

    async def release(self, entries: Sequence[Entry]) -> None:
        """Give back entries that no handler has begun, uncharged.

        Raises RedisError while Redis is unavailable.
        """
        leases = [Lease(entry.stream, entry.id, entry.delivery) for entry in entries]
        for answer in await self._handoff.release(leases):
            outcome = Outcome.RELEASED if answer is LeaseStatus.RELEASED else Outcome.GONE
            MESSAGES.labels(self._topic, outcome).inc()

    async def _give_back(self, entries: Sequence[Entry]) -> None:
        """`release`; while Redis is unavailable, a task of its own tries it again.

        Otherwise they would stay pending under a living worker, and count as suspect once they are reclaimed.
        """
        try:
            await self.release(entries)
        except TRANSIENT_REDIS_ERRORS as error:
            _log.warning("entries cannot be given back, trying again", topic=self._topic, error=str(error))
            task = self._supervisor.spawn_task(f"release {self._topic}", self._release_later(entries))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def close(self) -> None:
        """Let nothing begin any longer. What waits to run alone leaves the pool, for the caller to give back."""
        self._closed = True
        waiting = [task for task, (first, *_) in self._isolated.items() if first.state is State.WAITING_ALONE]
        await self._supervisor.end([*waiting, *self._releasing])

    async def abort(self) -> None:
        """End the wait for entries that run alone. Call it when their handlers have ended."""
        await self._supervisor.end(list(self._isolated))

    async def _run_alone(self, deliveries: list[Delivery]) -> None:
        try:
            async with self._pool.isolation(deliveries) as ends:
                self._executor.submit(deliveries)
                await asyncio.wait(ends)
        except asyncio.CancelledError:
            if deliveries[0].state is State.WAITING_ALONE:
                self._pool.withdraw(deliveries)
            raise

    async def _release_later(self, entries: Sequence[Entry]) -> None:
        backoff = Backoff()
        while True:
            await backoff.wait()
            try:
                return await self.release(entries)
            except TRANSIENT_REDIS_ERRORS:
                continue
