"""Checks before a step starts whether its run has ended or its deadline has passed."""

from collections.abc import Sequence
from datetime import datetime
from time import monotonic

import redis.asyncio

from octollm.protocol.backoff import REDIS_FAILURES
from octollm.protocol.handoff import Entry
from octollm.topology import LaneKeys

_FRESH_MS = 100
"""A step that was published within this time is started without a question: its run has hardly ended meanwhile, and if
so, the control channel stops the step within milliseconds. So an idle system pays no round trip, and in a busy one the
steps that were read together share one.
"""
_MAX_ENDED = 10_000
"""Ended runs that are kept. One that is dropped too early costs the work of a step, whose completion Redis refuses."""


class RedisClock:
    """Redis' time, kept up by this process' monotonic clock between two answers of Redis."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    def sync(self, redis_ms: int) -> None:
        """Set the time to what Redis has just said (ms since 1970)."""
        self._ahead_ms = redis_ms - monotonic() * 1000

    def now_ms(self) -> float | None:
        """Return Redis' time in ms since 1970; None before the first `sync`."""
        return None if self._ahead_ms is None else monotonic() * 1000 + self._ahead_ms


class RunWatch:
    """The ended runs of one lane, for the steps that start in this process."""

    def __init__(self, client: redis.asyncio.Redis, lane: str, clock: RedisClock) -> None:
        self._client = client
        self._ended_runs = LaneKeys(lane).ended_runs
        self._clock = clock
        self._ended: set[bytes] = set()
        """Members that were found: runs whose steps were read after their end."""

    def seconds_left(self, deadline_at: str | None) -> float:
        """Return how long until a deadline by Redis' clock; 0 or less: it has passed.

        Infinite if there is none.
        """
        now_ms = self._clock.now_ms()
        if deadline_at is None or now_ms is None:
            return float("inf")
        return datetime.fromisoformat(deadline_at).timestamp() - now_ms / 1000

    def is_fresh(self, entry: str) -> bool:
        """Whether an entry (its id) was published so recently that its run need not be looked up."""
        now_ms, published_ms = self._clock.now_ms(), entry.partition("-")[0]
        return now_ms is not None and published_ms.isdigit() and now_ms - int(published_ms) < _FRESH_MS

    async def look_up(self, entries: Sequence[Entry]) -> None:
        """Ask Redis which of these entries' runs have ended, in one call; `has_ended` answers by it.

        Asks for none that is fresh. Learns nothing while Redis is unavailable: it refuses a step's completion anyway.
        """
        members = [_member(one) for one in entries if not self.is_fresh(one.id)]
        if not members:
            return
        try:
            scores = await self._client.zmscore(self._ended_runs, members)  # type: ignore[arg-type]  # bytes are fine
        except REDIS_FAILURES:
            return
        if len(self._ended) > _MAX_ENDED:
            self._ended.clear()
        self._ended.update(one for one, score in zip(members, scores, strict=True) if score is not None)

    def has_ended(self, entry: Entry) -> bool:
        """Whether the last `look_up` of this entry found that its run has ended."""
        if not self._ended:
            return False
        return _member(entry) in self._ended


def _member(entry: Entry) -> bytes:
    """The run of a step's entry as a member of the set: `<task>.<run> <tenant>`."""
    run = b".".join(entry.fields.get(b"id", b"").split(b".", 2)[:2])
    return run + b" " + entry.fields.get(b"tenant", b"")
