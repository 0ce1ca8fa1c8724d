"""Commits completions: sends those that are ready at about the same time in one call of `complete`.

Most of a call's cost is the round trip and the start of the script, so a hundred entries share them. While Redis is
unavailable the committer waits; nothing is dropped.
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from octollm.consumer.delivery import Delivery
from octollm.consumer.pool import DeliveryPool
from octollm.protocol.backoff import REDIS_FAILURES, Backoff, is_transient
from octollm.protocol.handoff import BATCH, Completion, Handoff, LeaseStatus
from octollm.protocol.outcomes import REDIS_ERRORS, Outcome
from octollm.supervision import Supervisor

OUTCOMES: Mapping[LeaseStatus, Outcome] = {
    LeaseStatus.RUN_ENDED: Outcome.RUN_ENDED,
    LeaseStatus.STALE: Outcome.STALE,
    LeaseStatus.GONE: Outcome.GONE,
    LeaseStatus.VALID: Outcome.ABANDONED,
}
"""The outcome of a delivery that Redis did not let end as intended."""
_log = structlog.get_logger(__name__)


class Committer:
    """The queue of one consumer's completions, and the loop that sends them."""

    def __init__(self, handoff: Handoff, topic: str, pool: DeliveryPool, supervisor: Supervisor) -> None:
        self._handoff = handoff
        self._topic = topic
        self._pool = pool
        self._supervisor = supervisor
        self._queue: list[tuple[Completion, Delivery]] = []
        self._queued = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._loop = self._supervisor.spawn_loop(f"complete {self._topic}", self._run())

    async def stop(self) -> None:
        """End at once; deliveries that are still queued stay in the pool.

        Call it when no handler runs any longer.
        """
        if self._loop is not None:
            await self._supervisor.end([self._loop])

    def add(self, completion: Completion, delivery: Delivery) -> None:
        """Send this with the next call; then the delivery, in state COMMITTING, is settled or abandoned."""
        if not self._queue:
            self._queued.set()
        self._queue.append((completion, delivery))

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            await self._queued.wait()
            batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
            if not self._queue:
                self._queued.clear()
            while not await self._send(batch):
                REDIS_ERRORS.labels(self._topic, "complete").inc()
                await backoff.wait()
            backoff.reset()

    async def _send(self, batch: list[tuple[Completion, Delivery]]) -> bool:
        """Whether Redis has answered.

        A repeat after a lost reply is answered `gone` and writes nothing twice.
        """
        try:
            answers = await self._handoff.complete([completion for completion, _ in batch])
        except REDIS_FAILURES as error:
            if is_transient(error):
                _log.warning("completions wait for Redis", topic=self._topic, error=str(error))
                return False
            if len(batch) > 1:  # one of them is refused; the others must not suffer
                backoff = Backoff()
                for one in batch:
                    while not await self._send([one]):
                        await backoff.wait()
                return True
            _log.error("Redis refuses a completion; its entry stays pending", topic=self._topic, error=str(error))
            self._pool.abandon([delivery for _, delivery in batch])
            return True
        self._settle(batch, answers)
        return True

    def _settle(self, batch: list[tuple[Completion, Delivery]], answers: Sequence[LeaseStatus]) -> None:
        done = LeaseStatus.DONE
        self._pool.settle(
            (delivery, delivery.intended if status is done else OUTCOMES[status])
            for (_, delivery), status in zip(batch, answers, strict=True)
        )
