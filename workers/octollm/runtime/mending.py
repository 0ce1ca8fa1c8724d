"""Looks for steps whose message is nowhere any more, as the sweeper asks the bus."""

import time
from collections.abc import Callable

from octollm.consumer.worker import Worker
from octollm.contracts.ids import in_flight_field, lane_of
from octollm.database.pool import Pool
from octollm.errors import StoreUnavailableError
from octollm.orchestrator.messages import Send, StatusUpdate
from octollm.orchestrator.sweep import InFlight, sweep
from octollm.runtime.orchestrator_role import Translator, in_flight_field_of, step_fields, two_leases_s
from octollm.topology import Topology

_BATCH = 200


class Mender:
    """Sends again what is nowhere any more. A step counts as long in flight after twice the longest lease.

    After an outage of Redis it waits as long: until then those who were to send a step and could not do so themselves,
    and a step that both sent would run twice.
    """

    def __init__(
        self,
        pool: Pool,
        topology: Topology,
        translator: Translator,
        worker: Worker,
        *,
        hand_on: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hand_on`: steps go out with the stretches that follow them. `clock`: in seconds."""
        self._pool = pool
        self._translator = translator
        self._worker = worker
        self._hand_on = hand_on
        self._clock = clock
        self._two_leases_s = two_leases_s(topology)
        self._not_before = clock()

    async def look(self) -> None:
        """At some of them. Raises StoreUnavailableError while Redis or Postgres is away."""
        try:
            await self._worker.reach()
            if self._clock() >= self._not_before:
                await sweep(self._pool, self._two_leases_s, _BATCH, self._exists, self._resend, hand_on=self._hand_on)
        except StoreUnavailableError:
            self._not_before = self._clock() + self._two_leases_s
            raise

    async def _exists(self, step: InFlight, *, claim: bool) -> bool:
        lane = lane_of(step.task)
        live = in_flight_field(step.task, step.run, step.step, step.round)
        return await self._worker.in_flight(
            lane, live, self._translator.target(step.arm, step.priority, lane), claim=claim
        )

    async def _resend(self, send: Send, status: StatusUpdate) -> None:
        lane = lane_of(send.step.task)
        target = self._translator.target(send.step.arm, send.step.priority, lane)
        await self._worker.republish(lane, in_flight_field_of(send.step), target, step_fields(send))
        await self._worker.publish(lane, (self._translator.status(status),))
