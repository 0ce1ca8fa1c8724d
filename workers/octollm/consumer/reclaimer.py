"""Reclaims entries whose worker has died or hangs, and removes dead workers' names from the group."""

import asyncio
import random
from collections.abc import Sequence

import redis.asyncio
import structlog

from octollm.consumer.dead_consumers import DeadConsumers
from octollm.consumer.intake import Intake
from octollm.protocol.backoff import REDIS_FAILURES, Backoff, raise_if_refused
from octollm.protocol.handoff import Handoff
from octollm.protocol.outcomes import MESSAGES, REDIS_ERRORS, Outcome
from octollm.topology import Topic

_log = structlog.get_logger(__name__)


class Reclaimer:
    """The reclaim loop of one consumer."""

    def __init__(
        self, client: redis.asyncio.Redis, handoff: Handoff, topic: Topic, streams: Sequence[str], intake: Intake
    ) -> None:
        self._handoff = handoff
        self._topic = topic
        self._streams = streams
        self._intake = intake
        self._dead_consumers = DeadConsumers(client, handoff, topic.group, streams)

    async def run(self) -> None:
        """Look for abandoned entries until cancelled. Raises StoreRefusedError, which ends the process."""
        backoff = Backoff()
        while True:
            try:
                await self._dead_consumers.remove()
                more = await self._reclaim()
                backoff.reset()
            except REDIS_FAILURES as error:
                raise_if_refused(error, f"reclaim entries of {self._topic.name}")
                REDIS_ERRORS.labels(self._topic.name, "claim").inc()
                _log.warning("cannot look for abandoned entries", topic=self._topic.name, error=str(error))
                await backoff.wait()
                continue
            if not more:
                # Jitter spreads the calls of a pool of workers over the whole interval.
                await asyncio.sleep(self._topic.heartbeat_s * random.uniform(0.2, 1.0))  # noqa: S311

    async def _reclaim(self) -> bool:
        """Reclaim entries of each stream while there is capacity; whether there may be more."""
        found = False
        for stream in self._streams:
            await self._intake.capacity()
            entries, dead, ended = await self._handoff.claim(stream, self._topic, self._intake.claim_limits())
            for entry in dead:
                MESSAGES.labels(self._topic.name, Outcome.DEAD).inc()
                _log.error("gave up on an entry that was delivered too often", topic=self._topic.name, entry=entry)
            if ended:
                MESSAGES.labels(self._topic.name, Outcome.RUN_ENDED).inc(len(ended))
            if entries:
                self._intake.admit_reclaimed(entries)
            found = found or bool(entries or dead or ended)
        return found
