"""Renews the leases of this process' entries, on a thread with a connection of its own.

A thread, because a handler that keeps the event loop busy must not lose its lease. A lease is never renewed past the
handler's own time limit, so that another worker reclaims the entry of a handler that hangs.
"""

import asyncio
import threading
import time
from collections.abc import Callable

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from octollm.protocol.backoff import REDIS_FAILURES, is_transient
from octollm.protocol.handoff import LeaseStatus, renewal
from octollm.protocol.operations import DeliveryKey, Lease
from octollm.protocol.scripts import source
from octollm.supervision import SupervisedThread, Supervisor

_log = structlog.get_logger(__name__)
_AT_ONCE = 500
OnLost = Callable[[Lease, LeaseStatus], None]
_Renewal = tuple[Lease, float, OnLost]
"""A lease, when renewing ends (on the monotonic clock), and what to call when it is lost. One is made for each message:
a plain tuple costs a tenth of a named one.
"""


class LeaseRenewer:
    """The leases of one process in one consumer group; added and removed on one event loop."""

    def __init__(self, url: str, group: str, consumer: str, heartbeat_s: float) -> None:
        """`heartbeat_s`: pause between two renewals of every lease, and the time limit of one call."""
        self._client = redis.Redis.from_url(
            url, socket_connect_timeout=heartbeat_s, socket_timeout=heartbeat_s, retry=Retry(NoBackoff(), 0)
        )
        self._renew = self._client.register_script(source("renew"))
        self._group = group
        self._consumer = consumer
        self._heartbeat_s = heartbeat_s
        # Changed by the event loop and copied by the thread, each in one step of the interpreter: no lock is needed.
        self._renewals: dict[DeliveryKey, _Renewal] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread: SupervisedThread | None = None

    def start(self, supervisor: Supervisor) -> None:
        """Begin to renew; call it on the event loop that adds the leases."""
        self._loop = asyncio.get_running_loop()
        self._thread = supervisor.spawn_thread(f"leases {self._group}", self._run)

    def stop(self) -> None:
        """Renew nothing any longer. Blocks until the thread has ended, at most two heartbeats."""
        if self._thread is not None:
            self._thread.expect_end()
            self._stop.set()
            self._thread.join(2 * self._heartbeat_s)
        self._client.close()

    def add(self, key: DeliveryKey, lease: Lease, until: float, on_lost: OnLost) -> None:
        """Renew a lease until this time, in place of an earlier one.

        The time is of the monotonic clock; `inf` means until it is removed.

        `on_lost` is called on the event loop with the lease and its status: `run_ended`, `stale` or `gone`.
        """
        self._renewals[key] = (lease, until, on_lost)

    def remove(self, key: DeliveryKey) -> None:
        """Renew this lease no longer."""
        self._renewals.pop(key, None)

    def _run(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            now = time.monotonic()
            lanes: dict[str, list[_Renewal]] = {}
            for renewal_ in list(self._renewals.values()):
                if renewal_[1] > now:
                    # One call stays within one lane: on a cluster all its keys are in one slot.
                    lanes.setdefault(renewal_[0].stream.partition("}")[0], []).append(renewal_)
            for renewals in lanes.values():
                for first in range(0, len(renewals), _AT_ONCE):
                    self._renew_all(renewals[first : first + _AT_ONCE])

    def _renew_all(self, renewals: list[_Renewal]) -> None:
        call = renewal(self._group, self._consumer, [lease for lease, _, _ in renewals])
        try:
            answers = self._renew(keys=call.keys, args=call.args)
        except REDIS_FAILURES as error:
            if is_transient(error):
                _log.warning("leases could not be renewed, trying again", group=self._group, error=str(error))
            elif len(renewals) > 1:  # one of them is refused; the others must not suffer
                for one in renewals:
                    self._renew_all([one])
            else:
                entry = renewals[0][0].entry
                _log.error("Redis refuses to renew a lease", group=self._group, entry=entry, error=str(error))
            return
        for (lease, _, on_lost), answer in zip(renewals, answers, strict=True):
            status = LeaseStatus(answer.decode())
            if status is not LeaseStatus.VALID and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(on_lost, lease, status)
