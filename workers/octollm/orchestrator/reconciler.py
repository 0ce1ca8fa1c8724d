"""Republishes steps whose message is gone, so that tasks survive a flushed or restored Redis.

Postgres says what should be in flight, Redis says what is. The attempt is incremented before the message is sent, so
that a late result of the lost message is ignored.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from octollm.contracts.ids import in_flight_field, lane_of
from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.errors import StoreUnavailableError
from octollm.orchestrator import store
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import MessageLost
from octollm.orchestrator.messages import MessageBuilder
from octollm.orchestrator.publisher import Publisher
from octollm.orchestrator.state import Decision, Priority

_SQL = queries("octollm.orchestrator", "store")
_log = structlog.get_logger(__name__)


class _SentStep(NamedTuple):
    """A step that was sent long ago."""

    task: str
    run: int
    step: str
    round: int
    arm: str
    attempt: int
    priority: Priority

    @property
    def lane(self) -> str:
        return lane_of(self.task)


class Reconciler:
    """Checks steps that have been in flight for longer than two leases.

    After a Redis outage it waits two leases, so that the original sender can publish first. Otherwise both would
    publish and the step would run twice.
    """

    def __init__(
        self,
        pool: Pool,
        messages: MessageBuilder,
        publisher: Publisher,
        two_leases_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: monotonic, in seconds."""
        self._pool = pool
        self._messages = messages
        self._publisher = publisher
        self._two_leases_s = two_leases_s
        self._clock = clock
        self._not_before = clock()

    async def run(self, limit: int) -> int:
        """Check up to `limit` steps; return how many were sent again.

        Raises StoreUnavailableError while Redis or Postgres is unavailable.
        """
        try:
            await self._publisher.reach()
            return await self._check(limit) if self._clock() >= self._not_before else 0
        except StoreUnavailableError:
            self._not_before = self._clock() + self._two_leases_s
            raise

    async def _check(self, limit: int) -> int:
        async with transaction(self._pool) as connection:
            found = await connection.fetch(_SQL["long_in_flight"], self._two_leases_s, limit)
        lost = 0
        seen = []
        for row in found:
            step = _SentStep(**row)
            try:
                exists = await self._exists(step, claim=False)
                if not exists:
                    lost += await self._send_again(step)
            except StoreUnavailableError:
                raise
            except Exception:  # noqa: BLE001  the other steps must be checked, whatever this one meets
                _log.exception("a step in flight cannot be checked", task=step.task, step=step.step)
                exists = True  # the next run begins with the oldest and must not begin with this one again
            if exists:
                seen.append({"task": step.task, "step": step.step, "round": step.round})
        if seen:
            async with transaction(self._pool) as connection:
                await connection.execute(_SQL["set_last_seen"], seen)
        return lost

    async def _exists(self, step: _SentStep, *, claim: bool) -> bool:
        field = in_flight_field(step.task, step.run, step.step, step.round)
        stream = self._messages.stream(step.arm, step.priority, step.lane)
        return await self._publisher.in_flight(step.lane, field, stream, claim=claim)

    async def _send_again(self, step: _SentStep) -> int:
        # Redis is asked between two transactions: the row must not be locked while it takes its time. From the claim on
        # nobody else sends the step again.
        if await self._decide(step, save=False) is None or await self._exists(step, claim=True):
            return 0
        decision = await self._decide(step, save=True)
        if decision is None:
            return 0
        for request in decision.requests:
            message = self._messages.step(decision.state, request)
            await self._publisher.republish(step.lane, message.in_flight, message.stream, message.fields)
            await self._publisher.publish(step.lane, (self._messages.status(decision.state),))
        _log.warning("a step's message was lost and is sent again", task=step.task, step=step.step)
        return 1

    async def _decide(self, step: _SentStep, *, save: bool) -> Decision | None:
        """Return the decision that sends the step again; None if it has ended or was sent meanwhile."""
        async with transaction(self._pool) as connection:
            states, now = await store.lock(connection, [step.task])
            state = states.get(step.task)
            if state is None or now is None:
                return None
            decision = decide(state, MessageLost(step.step, step.round, step.attempt), now)
            if not decision.requests:  # of an overdue task neither: its end is left to its deadline
                return None
            if save:
                await store.save(connection, [], [decision])
            return decision
