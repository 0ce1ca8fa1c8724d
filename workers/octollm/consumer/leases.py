"""Keeps the leases of what this process works on: a thread with a connection of its own.

A thread, because a handler that keeps the event loop busy must not lose its lease. A lease is never kept past the
handler's own time limit, so that a handler that hangs is taken over.
"""

import asyncio
import threading
import time
from collections.abc import Callable

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from octollm.protocol.backoff import TRANSIENT_REDIS_ERRORS
from octollm.protocol.handoff import LeaseStatus, renewal
from octollm.protocol.operations import Key, Lease
from octollm.protocol.scripts import source
from octollm.supervision import SupervisedThread, Supervisor

_log = structlog.get_logger(__name__)
_AT_ONCE = 500
Lost = Callable[[Lease, LeaseStatus], None]
_Lease = tuple[Lease, float, Lost]
"""What is held, when it is given up (on the monotonic clock), and who hears that it was lost. One is made for each
message: a plain tuple costs a tenth of a named one.
"""


class Leases:
    """All leases of one consumer in one group; kept and dropped on one event loop."""

    def __init__(self, url: str, group: str, consumer: str, heartbeat_s: float) -> None:
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=heartbeat_s, socket_timeout=heartbeat_s, retry=Retry(NoBackoff(), 0)
        )
        self._renew = self._client.register_script(source("renew"))
        self._group = group
        self._consumer = consumer
        self._heartbeat_s = heartbeat_s
        # Changed by the event loop and copied by the thread, each in one step of the interpreter: no lock is needed.
        self._leases: dict[Key, _Lease] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread: SupervisedThread | None = None

    def start(self, supervisor: Supervisor) -> None:
        """Begin to renew what is kept on the current event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = supervisor.spawn_thread(f"leases {self._group}", self._run)

    def stop(self) -> None:
        """End; nothing is renewed any more."""
        if self._thread is not None:
            self._thread.expect_end()
            self._stop.set()
            self._thread.join(2 * self._heartbeat_s)
        self._client.close()

    def keep(self, key: Key, held: Lease, until: float, lost: Lost) -> None:
        """Renew from now on, and no longer than `until` (monotonic clock). `lost` is called on the event loop when the
        lease is lost: somebody else has the entry, it is gone, or its task was cancelled.
        """
        self._leases[key] = (held, until, lost)

    def drop(self, key: Key) -> None:
        """Renew no longer."""
        self._leases.pop(key, None)

    def _run(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            now = time.monotonic()
            due = [lease for lease in list(self._leases.values()) if lease[1] > now]
            lanes: dict[str, list[_Lease]] = {}
            for lease in due:
                # One call stays within one lane: on a cluster its keys lie in one slot.
                lanes.setdefault(lease[0].stream.partition("}")[0], []).append(lease)
            for leases in lanes.values():
                for first in range(0, len(leases), _AT_ONCE):
                    self._beat(leases[first : first + _AT_ONCE])

    def _beat(self, leases: list[_Lease]) -> None:
        call = renewal(self._group, self._consumer, [held for held, _, _ in leases])
        try:
            answers = self._renew(keys=call.keys, args=call.args)
        except TRANSIENT_REDIS_ERRORS as error:
            _log.warning("leases could not be renewed, trying again", group=self._group, error=str(error))
            return
        for (held, _, lost), answer in zip(leases, answers, strict=True):
            standing = LeaseStatus(answer.decode())
            if standing is not LeaseStatus.VALID and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(lost, held, standing)
