"""Gives entries back uncharged: those without a slot, and deliveries that end without a result.

While Redis is unavailable the releaser tries again: otherwise an entry would stay pending under a living worker until
its lease ends, and its next delivery would count as one after a crash. So it is with an entry that Redis refuses.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import structlog

from octollm.consumer.committer import OUTCOMES
from octollm.consumer.delivery import Delivery, Event
from octollm.consumer.pool import DeliveryPool
from octollm.protocol.backoff import REDIS_FAILURES, Backoff, is_transient
from octollm.protocol.handoff import BATCH, Entry, Handoff, LeaseStatus
from octollm.protocol.operations import DeliveryKey, Lease
from octollm.protocol.outcomes import MESSAGES, REDIS_ERRORS, Outcome
from octollm.supervision import Supervisor

_log = structlog.get_logger(__name__)


class _Return(NamedTuple):
    lease: Lease
    delivery: Delivery | None
    """None for an entry that was never admitted."""


class Releaser:
    """The queue of one consumer's returns, and the loop that sends them."""

    def __init__(self, handoff: Handoff, topic: str, pool: DeliveryPool, supervisor: Supervisor) -> None:
        self._handoff = handoff
        self._topic = topic
        self._pool = pool
        self._supervisor = supervisor
        self._queue: list[_Return] = []
        self._queued = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._loop: asyncio.Task[None] | None = None

    def __contains__(self, key: DeliveryKey) -> bool:
        """Whether this delivery is about to be given back."""
        return any((one.lease.stream, one.lease.entry, one.lease.delivery) == key for one in self._queue)

    def start(self) -> None:
        """Begin to send."""
        self._loop = self._supervisor.spawn_loop(f"release {self._topic}", self._run())

    async def stop(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for what is queued, then end. What could not be given back is abandoned."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            _log.warning("entries stay pending until their leases end", topic=self._topic, count=len(self._queue))
        if self._loop is not None:
            await self._supervisor.end([self._loop])
        self._pool.abandon([one.delivery for one in self._queue if one.delivery is not None])
        MESSAGES.labels(self._topic, Outcome.ABANDONED).inc(sum(one.delivery is None for one in self._queue))
        self._queue.clear()

    def add(self, deliveries: Iterable[Delivery], outcome: Outcome) -> None:
        """Give back deliveries that have not ended; they end with this outcome where Redis takes them back."""
        for delivery in deliveries:
            delivery.intended = outcome
            delivery.advance(Event.RETURN)
            self._put(_Return(delivery.lease, delivery))

    def add_entries(self, entries: Sequence[Entry]) -> None:
        """Give back entries that this consumer holds but never admitted, uncharged.

        Returns at once; the loop sends them in order, and counts the outcome of each.
        """
        for entry in entries:
            self._put(_Return(Lease(entry.stream, entry.id, entry.delivery), None))

    def _put(self, one: _Return) -> None:
        self._queue.append(one)
        self._queued.set()
        self._empty.clear()

    async def _run(self) -> None:
        backoff, size = Backoff(), BATCH
        while True:
            await self._queued.wait()
            batch = self._queue[:size]
            try:
                answers = await self._handoff.release([one.lease for one in batch])
            except REDIS_FAILURES as error:
                if is_transient(error):
                    REDIS_ERRORS.labels(self._topic, "release").inc()
                    _log.warning("entries cannot be given back, trying again", topic=self._topic, error=str(error))
                    await backoff.wait()
                    continue
                if len(batch) > 1:  # one of them is refused; the others must not suffer
                    size = 1
                    continue
                _log.error("Redis refuses to take an entry back; it stays pending", topic=self._topic, error=str(error))
                answers = [LeaseStatus.VALID]
            backoff.reset()
            del self._queue[: len(batch)]
            self._settle(batch, answers)
            if not self._queue:
                size = BATCH
                self._queued.clear()
                self._empty.set()

    def _settle(self, batch: Sequence[_Return], answers: Sequence[LeaseStatus]) -> None:
        ended: list[tuple[Delivery, Outcome]] = []
        for one, answer in zip(batch, answers, strict=True):
            released = answer is LeaseStatus.RELEASED
            if one.delivery is None:
                outcome = Outcome.RELEASED if released else OUTCOMES[answer]
                MESSAGES.labels(self._topic, outcome).inc()
            else:
                ended.append((one.delivery, one.delivery.intended if released else OUTCOMES[answer]))
        self._pool.settle(ended)
