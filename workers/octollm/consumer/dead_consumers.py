"""Removes the names of dead workers from a consumer group; Redis keeps them for ever otherwise."""

from collections.abc import Callable, Sequence
from time import monotonic

import redis.asyncio
import structlog
from redis.exceptions import ResponseError

from octollm.protocol.backoff import error_code, is_transient
from octollm.protocol.handoff import Handoff

DEAD_AFTER_S = 600.0
"""A worker that owns nothing and has not called Redis for this long is dead; a living one reads every two seconds."""
INTERVAL_S = 60.0
"""How often a worker looks, as the Rust programs do: a name disappears 11 minutes after the last call."""
_log = structlog.get_logger(__name__)


class DeadConsumers:
    """Looks for dead consumers of one group at the start, then once a minute."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        handoff: Handoff,
        group: str,
        streams: Sequence[str],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`clock`: returns seconds, and never goes back."""
        self._client = client
        self._handoff = handoff
        self._group = group
        self._streams = streams
        self._clock = clock
        self._looked_at: float | None = None

    async def remove(self) -> None:
        """Remove consumers that are silent and own nothing; at most once a minute.

        A living one would come back with its next read. Raises RedisError.
        """
        if self._looked_at is not None and self._clock() - self._looked_at < INTERVAL_S:
            return
        for stream in self._streams:
            try:
                consumers = await self._client.xinfo_consumers(stream, self._group)
            except ResponseError as error:
                if is_transient(error) and error_code(error) != "NOGROUP":
                    raise
                # There is no group at the moment, or an ACL forbids to look: no reason to stop.
                _log.debug("cannot look for dead consumers", stream=stream, error=str(error))
                continue
            for one in consumers:
                name = str(one["name"], "utf-8", "replace")
                if name != self._handoff.consumer and one["pending"] == 0 and one["idle"] >= DEAD_AFTER_S * 1000:
                    await self._handoff.leave_group([stream], name)
        self._looked_at = self._clock()
