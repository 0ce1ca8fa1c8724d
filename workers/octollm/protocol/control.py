"""The control channel: what every worker must know at once.

A lost message costs time, never correctness.
"""

import re
from collections.abc import Awaitable, Callable, Sequence

import structlog

from octollm.protocol.backoff import REDIS_FAILURES, Backoff, raise_if_refused
from octollm.protocol.connection import connect
from octollm.protocol.outcomes import REDIS_ERRORS
from octollm.topology import LaneKeys

_log = structlog.get_logger(__name__)
_ENDED = re.compile(rb"ended (l[0-9]{1,4}-[0-9a-hjkmnp-tv-z]{26}\.[1-9][0-9]{0,9})")
_QUIET_S = 30.0
"""After this long without a message the connection is tested."""
RunEnded = Callable[[str, str], Awaitable[None]]
"""Called with a lane and a run (`<task>.<run>`) whose steps must stop."""


async def listen(url: str, connect_timeout_s: float, lanes: Sequence[str], run_ended: RunEnded) -> None:
    """Call `run_ended` for every run that the lanes' control channels report as ended.

    Runs until it is cancelled.

    Uses a connection of its own, and connects again when that breaks; messages sent meanwhile are lost.
    Raises StoreRefusedError.
    """
    lane_of = {LaneKeys(lane).control.encode(): lane for lane in lanes}
    backoff = Backoff()
    while True:
        client = connect(url, connect_timeout_s)
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(*lane_of)
                backoff.reset()
                while True:
                    message = await channel.get_message(timeout=_QUIET_S)
                    if message is None:
                        await channel.ping()
                        continue
                    # A word that this version does not know comes from a newer one.
                    word = _ENDED.fullmatch(message["data"])
                    if word is not None:
                        await run_ended(lane_of[message["channel"]], word[1].decode())
        except REDIS_FAILURES as error:
            raise_if_refused(error, "subscribe to the control channels")
            REDIS_ERRORS.labels("control", "listen").inc()
            _log.warning("cannot listen on the control channel, trying again", error=str(error))
            await backoff.wait()
        finally:
            await client.aclose()
