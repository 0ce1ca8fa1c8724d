"""Checks before a step starts whether its run has ended or its deadline has passed."""

import asyncio
from datetime import datetime
from time import monotonic

import redis.asyncio

from octollm.protocol.backoff import REDIS_FAILURES
from octollm.topology import LaneKeys

_FRESH_MS = 100
"""A step that was published within this time is started without a question: its run has hardly ended meanwhile, and if
so, the control channel stops the step within milliseconds. So an idle system pays no round trip, and in a busy one the
steps that are started together share one.
"""


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
        self._asked: dict[bytes, asyncio.Future[bool]] = {}
        """Questions that the next call answers, by member of the set."""

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

    async def has_ended(self, run: str, tenant: bytes) -> bool:
        """Whether a run (`<task>.<run>`) has ended. The questions of one turn of the event loop share a call.

        False while Redis is unavailable: it refuses the step's completion in any case.
        """
        asked, member = self._asked, run.encode() + b" " + tenant
        if asked:
            if member not in asked:
                asked[member] = asyncio.get_running_loop().create_future()
            return await asyncio.shield(asked[member])
        asked[member] = asyncio.get_running_loop().create_future()
        ended: dict[bytes, bool] = {}
        try:
            await asyncio.sleep(0)  # steps that start in the same turn add their questions
            self._asked = {}
            ended = await self._look_up(list(asked))
        finally:  # also where this step is stopped meanwhile: the others wait for the answer
            self._asked = {} if self._asked is asked else self._asked
            for one, answer in asked.items():
                answer.set_result(ended.get(one, False))
        return ended.get(member, False)

    async def _look_up(self, members: list[bytes]) -> dict[bytes, bool]:
        try:
            scores = await self._client.zmscore(self._ended_runs, members)  # type: ignore[arg-type]  # bytes are fine
        except REDIS_FAILURES:
            return {}
        return {member: score is not None for member, score in zip(members, scores, strict=True)}
