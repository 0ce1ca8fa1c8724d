"""Reclaims entries whose worker has died or hangs, and removes dead workers' names from the group."""

import asyncio
import random
import time
from collections.abc import Sequence

import redis.asyncio
import structlog
from redis.exceptions import ResponseError

from octollm.consumer.intake import Intake
from octollm.protocol.backoff import REDIS_FAILURES, Backoff, is_transient, raise_if_refused
from octollm.protocol.handoff import Handoff
from octollm.protocol.outcomes import MESSAGES, REDIS_ERRORS, Outcome
from octollm.topology import Topic

DEAD_AFTER_S = 600.0
"""A worker that owns nothing and has not called Redis for this long is dead; a living one reads every two seconds."""
_log = structlog.get_logger(__name__)


class Reclaimer:
    """The reclaim loop of one consumer."""

    def __init__(
        self, client: redis.asyncio.Redis, handoff: Handoff, topic: Topic, streams: Sequence[str], intake: Intake
    ) -> None:
        self._client = client
        self._handoff = handoff
        self._topic = topic
        self._streams = streams
        self._intake = intake
        self._next_removal = 0.0
        """When names of dead workers are looked for again, on the monotonic clock."""

    async def run(self) -> None:
        """Look for abandoned entries until cancelled. Raises StoreRefusedError, which ends the process."""
        backoff = Backoff()
        while True:
            try:
                await self._remove_dead_consumers()
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

    async def _remove_dead_consumers(self) -> None:
        """Remove consumers that are silent and own nothing. A living one would come back with its next read."""
        if time.monotonic() < self._next_removal:
            return
        self._next_removal = time.monotonic() + DEAD_AFTER_S
        for stream in self._streams:
            try:
                consumers = await self._client.xinfo_consumers(stream, self._topic.group)
            except ResponseError as error:
                if is_transient(error):
                    raise
                # There is no group at the moment, or an ACL forbids to look: no reason to stop.
                _log.debug("cannot look for dead consumers", stream=stream, error=str(error))
                continue
            for one in consumers:
                name = str(one["name"], "utf-8", "replace")
                if name != self._handoff.consumer and one["pending"] == 0 and one["idle"] >= DEAD_AFTER_S * 1000:
                    await self._handoff.leave_group([stream], name)

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
