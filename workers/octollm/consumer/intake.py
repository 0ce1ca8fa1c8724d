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
from octollm.consumer.releaser import Releaser
from octollm.protocol.handoff import ClaimLimits, Entry
from octollm.supervision import Supervisor
from octollm.topology import Topic

_log = structlog.get_logger(__name__)


class Intake:
    """The entrance of one consumer."""

    def __init__(
        self,
        topic: Topic,
        pool: DeliveryPool,
        executor: Executor,
        releaser: Releaser,
        breaker: CircuitBreaker,
        supervisor: Supervisor,
    ) -> None:
        self._topic = topic
        self._pool = pool
        self._executor = executor
        self._releaser = releaser
        self._breaker = breaker
        self._supervisor = supervisor
        self._closed = False
        self._isolations: dict[asyncio.Task[None], Delivery] = {}
        """Tasks that isolate a suspect, with it."""

    async def capacity(self) -> int:
        """Wait until at least one entry may begin here; how many may."""
        return await self._breaker.permits(await self._pool.capacity())

    def claim_limits(self) -> ClaimLimits:
        """How many entries of other workers may be reclaimed now."""
        limits = self._pool.claim_limits()
        if not self._breaker.tripped:
            return limits
        return ClaimLimits(min(1, limits.most), min(1, limits.started), limits.suspects, limits.last)

    def admit(self, entries: Sequence[Entry]) -> None:
        """Begin as many of these entries as there is capacity for, and give back the others."""
        free = 0 if self._closed else self._pool.free()
        if self._breaker.tripped:
            free = int(free > 0 and self._breaker.try_acquire())
        if admitted := entries[:free]:
            self._executor.submit(self._pool.admit(admitted))
        if surplus := entries[free:]:
            self._releaser.add_entries(surplus)

    def admit_reclaimed(self, entries: Sequence[Entry]) -> None:
        """Begin reclaimed entries in ordinary slots, except suspects, which may have killed their workers.

        The suspect is isolated, so that nothing else is charged if it kills this process, too.
        """
        _log.info("reclaimed entries", topic=self._topic.name, entries=[entry.id for entry in entries])
        suspects = [entry for entry in entries if entry.delivery >= self._topic.suspect_from]
        self.admit([entry for entry in entries if entry.delivery < self._topic.suspect_from])
        for entry in suspects:
            if self._closed or not self._breaker.try_acquire():
                self._releaser.add_entries([entry])
                continue
            suspect = self._pool.admit_suspect(entry)
            task = self._supervisor.spawn_task(f"isolate {self._topic.name}", self._isolate(suspect))
            self._isolations[task] = suspect
            task.add_done_callback(self._isolations.pop)

    async def close(self) -> None:
        """Let nothing begin any longer.

        A suspect that still waits for its isolation stays in the pool, as it is.
        """
        self._closed = True
        waiting = [task for task, suspect in self._isolations.items() if suspect.state is State.WAITING_ALONE]
        await self._supervisor.end(waiting)

    async def abort(self) -> None:
        """End the isolations that go on. Call it when their handlers have ended."""
        await self._supervisor.end(list(self._isolations))

    async def _isolate(self, suspect: Delivery) -> None:
        async with self._pool.isolation(suspect):
            self._executor.submit([suspect])
            await self._pool.until_ended_or_joined(suspect)
