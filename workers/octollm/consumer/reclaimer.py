"""Looks for entries that nobody works on any more, and for names of workers that are gone."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import redis.asyncio
import structlog

from octollm.protocol.backoff import TRANSIENT_REDIS_ERRORS, Backoff
from octollm.protocol.handoff import Entry, Handoff
from octollm.protocol.outcomes import MESSAGES, REDIS_ERRORS, Outcome
from octollm.topology import Topic

FORGET_AFTER_S = 600.0
"""After how long without a word a worker that owns nothing is taken for gone; a living one reads every two seconds."""
_log = structlog.get_logger(__name__)


class Reclaimer:
    """Of one consumer. `room` waits until there is some; `most` says how many entries may be taken over at once; `take`
    begins them, until the next may come.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        handoff: Handoff,
        topic: Topic,
        streams: Sequence[str],
        room: Callable[[], Awaitable[int]],
        most: Callable[[], int],
        take: Callable[[Sequence[Entry]], Awaitable[None]],
    ) -> None:
        self._client = client
        self._handoff = handoff
        self._topic = topic
        self._streams = streams
        self._room = room
        self._take = take
        self._most = most
        self._trust = 1
        """How many the next takeover may bring."""
        self._next_forgetting = 0.0

    async def run(self) -> None:
        """For ever."""
        pause = Backoff()
        while True:
            try:
                await self._forget_the_dead()
                more = await self._claim_once()
                pause.over()
            except TRANSIENT_REDIS_ERRORS as error:
                REDIS_ERRORS.labels(self._topic.name, "claim").inc()
                _log.warning("cannot look for abandoned entries", topic=self._topic.name, error=str(error))
                await pause.wait()
                continue
            if not more:
                # Jitter, so that a pool of workers looks all the time and not all at once.
                await asyncio.sleep(self._topic.heartbeat_s * random.uniform(0.2, 1.0))  # noqa: S311

    async def _forget_the_dead(self) -> None:
        """Names of workers that are gone and own nothing. A living one would come back with its next read."""
        if time.monotonic() < self._next_forgetting:
            return
        self._next_forgetting = time.monotonic() + FORGET_AFTER_S
        for stream in self._streams:
            for one in await self._client.xinfo_consumers(stream, self._topic.group):
                name = str(one["name"], "utf-8", "replace")
                if name != self._handoff.consumer and one["pending"] == 0 and one["idle"] >= FORGET_AFTER_S * 1000:
                    await self._handoff.leave_group([stream], name)

    async def _claim_once(self) -> bool:
        """Take over entries of each stream where there is room; whether there may be more.

        One at first, and twice as many whenever those before have ended: taking over counts as a delivery, and who is
        taken over with one that kills this process is charged for it. Once only: after that each comes alone.
        """
        found = False
        for stream in self._streams:
            await self._room()
            self._trust = min(self._trust, self._most())
            entries, dead = await self._handoff.claim(stream, self._topic, self._trust)
            for given_up in dead:
                MESSAGES.labels(self._topic.name, Outcome.DEAD).inc()
                _log.error("gave up on an entry that was delivered too often", topic=self._topic.name, entry=given_up)
            if entries:
                await self._take(entries)
                self._trust *= 2
            found = found or bool(entries or dead)
        if not found:
            self._trust = 1
        return found
