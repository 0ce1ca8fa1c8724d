"""Checks before a step starts whether its run has ended or its deadline has passed.

The control channel announces each run that ends, so almost no step costs a question: Redis is asked only about runs
that were announced, and about steps that are older than what this process knows.
"""

from collections.abc import Sequence
from datetime import datetime
from time import monotonic

import redis.asyncio

from octollm.protocol.backoff import REDIS_FAILURES
from octollm.protocol.handoff import Entry
from octollm.topology import LaneKeys

_MOST = 20_000
"""Runs that are kept, of each kind. One that is dropped costs a question, never a wrong answer."""
_SILENT_S = 7.0
"""A control channel that was silent for this long (it answers a ping every 3 s) may have lost announcements."""
_CLOCK_MS = 1000
"""How far `RedisClock` may be behind Redis, generously."""


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
    """The ended runs of one lane, for the steps that start in this process.

    `announce` and `load` say which runs may have ended; a question to Redis decides, since another tenant's request
    may name the same run.
    """

    def __init__(self, client: redis.asyncio.Redis, lane: str, clock: RedisClock) -> None:
        keys = LaneKeys(lane)
        self.channel = keys.control.encode()
        """Name of the lane's control channel."""
        self.lane = lane
        self._client = client
        self._ended_runs = keys.ended_runs
        self._clock = clock
        self._announced: set[bytes] = set()
        """Runs (`<task>.<run>`) that ended while they were watched, or before."""
        self._known_from_ms = float("inf")
        """No run has ended without being in `_announced` of which a step was published at this time (ms, Redis' clock)
        or later. 0: none at all. Infinite: nothing is known.
        """
        self._heard_at = 0.0
        self._ended: set[bytes] = set()
        """Members of Redis' set that were found: runs whose steps were read after their end."""

    def seconds_left(self, deadline_at: str | None) -> float:
        """Return how long until a deadline by Redis' clock; 0 or less: it has passed.

        Infinite if there is none.
        """
        if deadline_at is None:
            return float("inf")
        now_ms = self._clock.now_ms()
        if now_ms is None:
            return float("inf")
        return datetime.fromisoformat(deadline_at).timestamp() - now_ms / 1000

    def announce(self, run: str) -> None:
        """Remember a run (`<task>.<run>`) that the control channel has announced as ended."""
        if len(self._announced) >= _MOST:
            self._drop_older()
        self._announced.add(run.encode())

    def heard(self) -> None:
        """The control channel is alive: it has just answered, or brought a message."""
        self._heard_at = monotonic()

    async def load(self) -> None:
        """Learn which runs have ended. Call it whenever the subscription to the control channel has begun.

        Raises RedisError or OSError.
        """
        # One more than fits shows that there are older ones.
        members = await self._client.zrevrange(self._ended_runs, 0, _MOST)
        self._announced.update(bytes(one).partition(b" ")[0] for one in members)  # type: ignore[arg-type]  # bytes by our decoding
        self._known_from_ms = 0
        if len(members) > _MOST:
            self._drop_older()

    def lost(self) -> None:
        """The control channel is lost, and with it whatever it announces until `load`."""
        self._announced.clear()
        self._known_from_ms = float("inf")

    def is_unsure(self, entry: Entry) -> bool:
        """Whether only Redis knows if a step's run has ended."""
        if not self._is_heard():
            return True
        if self._announced and _run(entry) in self._announced:
            return True
        if not self._known_from_ms:
            return False
        published_ms = entry.id.partition("-")[0]
        return not published_ms.isdigit() or int(published_ms) < self._known_from_ms

    async def look_up(self, entries: Sequence[Entry]) -> None:
        """Ask Redis in one call which of these entries' runs have ended, where this process is unsure.

        Learns nothing while Redis is unavailable: it refuses a step's completion anyway.
        """
        if not self._announced and not self._known_from_ms and self._is_heard():
            return  # almost always
        members = [_member(one) for one in entries if self.is_unsure(one)]
        if not members:
            return
        try:
            scores = await self._client.zmscore(self._ended_runs, members)  # type: ignore[arg-type]  # bytes are fine
        except REDIS_FAILURES:
            return
        if len(self._ended) > _MOST:
            self._ended.clear()
        self._ended.update(one for one, score in zip(members, scores, strict=True) if score is not None)

    @property
    def knows_of_none(self) -> bool:
        """Whether no run is known, or suspected, to have ended. Then `has_ended` need not be called."""
        return not self._announced and not self._ended

    async def has_ended(self, entry: Entry) -> bool:
        """Whether the run of a step has ended. Call it after `look_up`, right before the step starts.

        It asks Redis only if the run was announced since then.
        """
        member = _member(entry)
        if member not in self._ended and _run(entry) in self._announced:
            await self.look_up([entry])
        return member in self._ended

    def _is_heard(self) -> bool:
        """Whether the control channel is alive."""
        return monotonic() - self._heard_at <= _SILENT_S

    def _drop_older(self) -> None:
        """Start over. Steps that are already published are looked up from now on."""
        now_ms = self._clock.now_ms()
        self._announced.clear()
        self._known_from_ms = float("inf") if now_ms is None else max(self._known_from_ms, now_ms + _CLOCK_MS)


def _run(entry: Entry) -> bytes:
    return b".".join(entry.fields.get(b"id", b"").split(b".", 2)[:2])


def _member(entry: Entry) -> bytes:
    """The run of a step's entry as a member of the set: `<task>.<run> <tenant>`."""
    return _run(entry) + b" " + entry.fields.get(b"tenant", b"")
