"""Periodic work of the orchestrator that no message causes: deadlines, scheduled starts, lost steps, retention."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog

from octollm.contracts.ids import lane_of
from octollm.database.pool import Pool
from octollm.orchestrator.eviction import Eviction
from octollm.orchestrator.messages import MessageBuilder
from octollm.orchestrator.publisher import Publisher, two_leases_s
from octollm.orchestrator.reconciler import Reconciler
from octollm.orchestrator.retention import purge, results_not_indexed
from octollm.orchestrator.scheduler import Scheduler
from octollm.orchestrator.service import Orchestrator
from octollm.orchestrator.state import Decision
from octollm.periodic import PeriodicJob
from octollm.topology import Topology
from octollm.topology.schedules import Schedule

_LIMIT = 200
"""Tasks, steps or fields handled in one transaction or script call."""
_KEY_LIMIT = 10_000
_START_INTERVAL_S = 1.0
"""A scheduled task starts at most this late."""
_EVICT_INTERVAL_S = 1.0
"""How often the memory of Redis is checked: it may fill within seconds."""
_log = structlog.get_logger(__name__)


class Maintenance:
    """The orchestrator's jobs. Any number of processes may run them at the same time."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        pool: Pool,
        topology: Topology,
        messages: MessageBuilder,
        publisher: Publisher,
        schedules: Sequence[Schedule] = (),
    ) -> None:
        self._orchestrator = orchestrator
        self._pool = pool
        self._topology = topology
        self._messages = messages
        self._publisher = publisher
        self._two_leases_s = two_leases_s(topology)
        self._reconciler = Reconciler(pool, messages, publisher, self._two_leases_s)
        self._scheduler = Scheduler(schedules, pool, publisher.submit) if schedules else None
        self._eviction = Eviction(pool, publisher, messages.status_ttl_s)
        self._prune_cursors = dict.fromkeys(topology.lanes, 0)

    def jobs(self, interval_s: float, finished_days: int, purge_interval_s: float) -> list[PeriodicJob]:
        """Return the jobs to run. `interval_s`: of those that look for what is overdue or lost.

        `finished_days`: after how many days finished tasks are deleted, every `purge_interval_s`; 0: never.
        """
        jobs = [
            PeriodicJob("expire tasks", interval_s, self.expire_tasks),
            PeriodicJob("start scheduled tasks", _START_INTERVAL_S, self.start_due_tasks),
            PeriodicJob("reconcile lost steps", interval_s, lambda: self._reconciler.run(_LIMIT)),
            PeriodicJob("prune the in-flight index", interval_s, self.prune_in_flight_index),
            PeriodicJob("republish results", interval_s, self.republish_results),
            PeriodicJob("evict finished statuses", _EVICT_INTERVAL_S, self._eviction.run),
            PeriodicJob("delete expired keys", interval_s, lambda: self._orchestrator.delete_expired_keys(_KEY_LIMIT)),
        ]
        if finished_days > 0:
            jobs.append(PeriodicJob("delete old tasks", purge_interval_s, lambda: self.delete_old_tasks(finished_days)))
        scheduler = self._scheduler
        if scheduler is not None:
            jobs.append(PeriodicJob("submit schedules", _START_INTERVAL_S, lambda: scheduler.tick(datetime.now(UTC))))
        return jobs

    async def expire_tasks(self) -> None:
        """End overdue tasks and publish that, beginning with those whose publication failed before."""
        await self._publish_all(self._orchestrator.unpublished)
        await self._publish_all(self._orchestrator.expire)

    async def start_due_tasks(self) -> None:
        """Start scheduled tasks whose time has come."""
        await self._publish_all(self._orchestrator.start_due)

    async def prune_in_flight_index(self) -> None:
        """Remove fields from the in-flight index that a deleted stream has left behind, some of each lane at a time."""
        for lane, cursor in self._prune_cursors.items():
            self._prune_cursors[lane], pruned = await self._publisher.prune(lane, cursor, _LIMIT)
            if pruned:
                _log.info("pruned the in-flight index", lane=lane, fields=pruned)

    async def republish_results(self) -> None:
        """Publish results again that memory has not indexed for a long time."""
        topic = self._topology.topics.get("results")
        if topic is None:
            return
        oldest_ms = await self._publisher.oldest_ms(topic)
        oldest = None if oldest_ms is None else datetime.fromtimestamp(oldest_ms / 1000, UTC)
        for state in await results_not_indexed(self._pool, self._two_leases_s, oldest, _LIMIT):
            await self._publisher.publish(lane_of(state.task), self._messages.result(state))

    async def delete_old_tasks(self, days: int) -> None:
        """Delete tasks that ended more than `days` ago."""
        while await purge(self._pool, days, _LIMIT, memory="results" in self._topology.topics):
            pass

    async def _publish_all(self, decide: Callable[[int], Awaitable[Sequence[Decision]]]) -> None:
        while True:
            decisions = await decide(_LIMIT)
            for decision in decisions:
                await self._publisher.publish(lane_of(decision.state.task), self._messages.operations(decision))
            if decisions:
                await self._orchestrator.mark_published([decision.state.task for decision in decisions])
            if len(decisions) < _LIMIT:
                return
