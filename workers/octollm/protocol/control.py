"""The control channel: what every worker must know at once.

A lost message costs time, never correctness.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as BrokenError

from octollm.protocol.backoff import REDIS_FAILURES, Backoff, raise_if_refused
from octollm.protocol.connection import connect
from octollm.protocol.outcomes import REDIS_ERRORS
from octollm.protocol.run_watch import RunWatch

_log = structlog.get_logger(__name__)
_ENDED = re.compile(rb"ended (l[0-9]{1,4}-[0-9a-hjkmnp-tv-z]{26}\.[1-9][0-9]{0,9})")
_QUIET_S = 3.0
"""After this long without a message the connection is tested, and lost if it then stays silent for as long again."""
RunEnded = Callable[[str, str], Awaitable[None]]
"""Called with a lane and a run (`<task>.<run>`) whose steps must stop."""


async def listen(url: str, connect_timeout_s: float, watches: Sequence[RunWatch], run_ended: RunEnded) -> None:
    """Tell the watches and `run_ended` of every run that their lanes' control channels announce as ended.

    Runs until it is cancelled.

    Uses a connection of its own, and connects again when that breaks; messages sent meanwhile are lost, so the watches
    load what has ended whenever a subscription begins. Raises StoreRefusedError.
    """
    by_channel = {one.channel: one for one in watches}
    backoff = Backoff()
    while True:
        client = connect(url, connect_timeout_s)
        try:
            async with client.pubsub() as channel:
                await channel.subscribe(*by_channel)
                await _follow(channel, by_channel, run_ended, backoff)
        except REDIS_FAILURES as error:
            raise_if_refused(error, "listen on the control channels")
            REDIS_ERRORS.labels("control", "listen").inc()
            _log.warning("cannot listen on the control channel, trying again", error=str(error))
            await backoff.wait()
        finally:
            for one in watches:
                one.lost()
            await client.aclose()


async def _follow(channel: PubSub, by_channel: Mapping[bytes, RunWatch], run_ended: RunEnded, backoff: Backoff) -> None:
    """Read one subscription until it breaks. Raises RedisError or OSError."""
    tested = False
    while True:
        message = await channel.get_message(timeout=_QUIET_S)
        if message is None:
            if tested:
                raise BrokenError("no answer to a ping")
            tested = True
            await channel.ping()
            continue
        tested = False
        for watch in by_channel.values():
            watch.heard()
        # redis-py connects again by itself after some errors, and subscribes again: what it missed is loaded then, too.
        if message["type"] == "subscribe":
            await by_channel[message["channel"]].load()
            backoff.reset()
        elif message["type"] == "message":
            # A word that this version does not know comes from a newer one.
            word = _ENDED.fullmatch(message["data"])
            if word is not None:
                watch, run = by_channel[message["channel"]], word[1].decode()
                watch.announce(run)
                await run_ended(watch.lane, run)
