"""The control channel: what every worker must know at once. A message that gets lost costs time, never correctness."""

import re
from collections.abc import Awaitable, Callable, Sequence

import structlog

from octollm.protocol.backoff import TRANSIENT_REDIS_ERRORS, Backoff
from octollm.protocol.connection import connect
from octollm.protocol.outcomes import REDIS_ERRORS
from octollm.topology import LaneKeys

_log = structlog.get_logger(__name__)
_CANCEL = re.compile(rb"cancel (l[0-9]{1,4}-[0-9a-hjkmnp-tv-z]{26})")
_QUIET_S = 30.0
"""After how long without a message the connection is tried."""
Cancel = Callable[[str, str], Awaitable[None]]
"""Called with a lane and a task whose steps are to be stopped."""


async def listen(url: str, connect_timeout_s: float, lanes: Sequence[str], cancel: Cancel) -> None:
    """Hear and obey, for ever, on a connection of its own. What is said while it is away is not heard."""
    lane_of = {LaneKeys(lane).control.encode(): lane for lane in lanes}
    pause = Backoff()
    while True:
        client = connect(url, connect_timeout_s)
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(*lane_of)
                pause.over()
                while True:
                    message = await channel.get_message(timeout=_QUIET_S)
                    if message is None:
                        await channel.ping()
                        continue
                    # Words this version does not know are a newer one's.
                    word = _CANCEL.fullmatch(message["data"])
                    if word is not None:
                        await cancel(lane_of[message["channel"]], word[1].decode())
        except TRANSIENT_REDIS_ERRORS as error:
            REDIS_ERRORS.labels("control", "listen").inc()
            _log.warning("cannot listen on the control channel, trying again", error=str(error))
            await pause.wait()
        finally:
            await client.aclose()
