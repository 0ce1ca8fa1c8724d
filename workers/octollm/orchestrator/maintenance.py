"""Periodic work of the orchestrator that no message causes.

It covers deadlines, delayed starts, lost steps and retention.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime

import structlog

from octollm.contracts.ids import lane_of
from octollm.database.pool import Pool
from octollm.errors import StoreUnavailableError
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
_PUBLISH_LIMIT = 100
"""Decisions published in one script call."""
_KEY_LIMIT = 10_000
_DUE_INTERVAL_S = 1.0
"""How often deadlines and starts are looked for. An alarm makes them exact; without it they are at most this late."""
_KINDS_INTERVAL_S = 1.0
"""How often is checked that the kinds are published: a reflex that starts checks nothing before."""
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
        self._scheduler = Scheduler(schedules, pool, publisher.submit)
        self._eviction = Eviction(pool, publisher, messages.status_ttl_s)
        self._prune_cursors = dict.fromkeys(topology.lanes, 0)
        self._kinds_published = False

    def jobs(self, interval_s: float, finished_days: int, purge_interval_s: float) -> list[PeriodicJob]:
        """Return the jobs to run. `interval_s`: of those that look for what is overdue or lost.

        `finished_days`: after how many days finished tasks are deleted, every `purge_interval_s`; 0: never.
        """
        jobs = [
            PeriodicJob("expire tasks", _DUE_INTERVAL_S, self.expire_tasks, self._orchestrator.deadlines),
            PeriodicJob("start due runs", _DUE_INTERVAL_S, self.start_due_runs, self._orchestrator.starts),
            PeriodicJob("publish kinds", _KINDS_INTERVAL_S, self.publish_kinds),
            PeriodicJob("submit schedules", _DUE_INTERVAL_S, self._scheduler.run),
            PeriodicJob("republish ends", interval_s, self.republish_ends),
            PeriodicJob("reconcile lost steps", interval_s, lambda: self._reconciler.run(_LIMIT)),
            PeriodicJob("prune the in-flight index", interval_s, self.prune_in_flight_index),
            PeriodicJob("republish results", interval_s, self.republish_results),
            PeriodicJob("evict finished statuses", _EVICT_INTERVAL_S, self._eviction.run),
            PeriodicJob("delete expired keys", interval_s, lambda: self._orchestrator.delete_expired_keys(_KEY_LIMIT)),
        ]
        if finished_days > 0:
            jobs.append(PeriodicJob("delete old tasks", purge_interval_s, lambda: self.delete_old_tasks(finished_days)))
        return jobs

    async def publish_kinds(self) -> None:
        """Publish the kinds once after the start, and again if Redis has lost them.

        What a process with other recipes publishes later stays: the process that started last decides.
        """
        schemas = self._orchestrator.planning.schemas
        if await self._publisher.publish_kinds(schemas, replace=not self._kinds_published):
            _log.info("published the kinds of tasks", kinds=sorted(schemas))
        self._kinds_published = True

    async def expire_tasks(self) -> None:
        """End overdue tasks and publish that."""
        await self._publish_all(self._orchestrator.expire)

    async def start_due_runs(self) -> None:
        """Start runs whose time has come, except those whose earlier run is still being stopped."""
        await self._publish_all(lambda limit: self._orchestrator.start_due(limit, self._executing))

    async def republish_ends(self) -> None:
        """Publish ends whose publication failed, and cancel tasks whose request was overlooked."""
        await self._publish_all(self._orchestrator.unpublished)
        await self._publish_all(self._orchestrator.cancel_overlooked)

    async def prune_in_flight_index(self) -> None:
        """Remove fields of deleted streams from the in-flight index, some of each lane at a time."""
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

    async def _executing(self, task: str, in_flight: Sequence[str]) -> int:
        return await self._publisher.executing(lane_of(task), in_flight)

    async def _publish_all(self, decide: Callable[[int], Awaitable[Sequence[Decision]]]) -> None:
        while True:
            decisions = await decide(_LIMIT)
            published: list[str] = []
            for lane, some in _batches(decisions):
                together = await self._publish_together(lane, some)
                published += [one.state.task for one in some if together or await self._publish(one)]
            if published:
                await self._orchestrator.mark_published(published)
            if len(published) < _LIMIT:
                return

    async def _publish_together(self, lane: str, decisions: Sequence[Decision]) -> bool:
        """Publish in one call; False if a decision makes that impossible, and nothing is published."""
        try:
            await self._publisher.publish(lane, *map(self._messages.operations, decisions))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, each decision is tried by itself next
            _log.warning(
                "decisions cannot be published together", lane=lane, decisions=len(decisions), error=repr(error)
            )
            return False
        return True

    async def _publish(self, decision: Decision) -> bool:
        """Publish what follows from a decision, or fail its task if that is impossible.

        Return whether it was done.
        """
        task = decision.state.task
        try:
            await self._publisher.publish(lane_of(task), self._messages.operations(decision))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  the other tasks go on, whatever this one meets
            _log.exception("a decision cannot be published", task=task)
            failed = [] if decision.state.ended else await self._orchestrator.fail(task, error)
            return any([await self._publish(one) for one in failed])
        return True


def _batches(decisions: Sequence[Decision]) -> Iterator[tuple[str, Sequence[Decision]]]:
    """Split decisions into what one call may publish: decisions of one lane, at most `_PUBLISH_LIMIT`."""
    lanes: dict[str, list[Decision]] = {}
    for decision in decisions:
        lanes.setdefault(lane_of(decision.state.task), []).append(decision)
    for lane, some in lanes.items():
        for first in range(0, len(some), _PUBLISH_LIMIT):
            yield lane, some[first : first + _PUBLISH_LIMIT]
