"""The deliveries of one consumer.

The pool knows which there are, how many more fit, which leases are renewed, and how each ended.

Everything that changes what this consumer holds goes through here. One event loop, no Redis.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Container, Iterable, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import structlog

from octollm.consumer.delivery import HANDLED, Delivery, Event, State
from octollm.consumer.leases import LeaseRenewer
from octollm.contracts.ids import in_flight_field_in
from octollm.protocol.handoff import ClaimLimits, Entry, LeaseStatus
from octollm.protocol.operations import DeliveryKey, Lease, StepRun
from octollm.protocol.outcomes import MESSAGES, RUNNING_MESSAGES, Outcome
from octollm.topology import ARM, LaneKeys, Topic

_GRACE_S = 30.0
"""How much longer than the handler's own limit a lease is renewed, for the completion."""
ISOLATION_S = 1.0
"""How long a suspect waits for what runs here to end, and how long nothing else begins next to it."""
_PAUSE_FACTOR = 4
"""How many times as long as an isolation no other one begins: isolation takes at most a fifth of a consumer's time."""
_log = structlog.get_logger(__name__)


class DeliveryPool:
    """The only owner of a consumer's deliveries: a bounded number at a time, and at most one suspect."""

    def __init__(self, topic: Topic, keys: LaneKeys, size: int, leases: LeaseRenewer) -> None:
        """`size`: how many entries may run at once."""
        self.size = size
        self._topic = topic
        self._keys = keys
        self._leases = leases
        self._deliveries: dict[DeliveryKey, Delivery] = {}
        self._taken = 0
        """Slots that are in use."""
        self._reclaimed = 0
        """Slots that are in use by entries that began elsewhere before, and are no suspects."""
        self._suspects = 0
        self._isolated = False
        """Whether a suspect runs alone, or waits for that: nothing else begins meanwhile."""
        self._next_isolation = 0.0
        """When the next suspect may be reclaimed, on the monotonic clock."""
        self._waiting: list[asyncio.Future[None]] = []
        self._is_arm = topic.name.startswith(ARM)
        # Without a limit of its own (the orchestrator's topics) a handler waits for Postgres as long as it takes.
        self._limit_s = float("inf") if topic.timeout_s is None else topic.timeout_s + _GRACE_S
        # By topic and outcome once, not with every message.
        self._running_gauge = RUNNING_MESSAGES.labels(topic.name)
        self._messages = {outcome: MESSAGES.labels(topic.name, outcome) for outcome in Outcome}

    def __contains__(self, key: object) -> bool:
        """Whether this delivery is here and has not ended."""
        return key in self._deliveries

    def __len__(self) -> int:
        """How many deliveries have not ended."""
        return len(self._deliveries)

    def free(self) -> int:
        """How many entries may be admitted right now."""
        return 0 if self._isolated else max(0, self.size - self._taken)

    async def capacity(self) -> int:
        """Wait until at least one entry may be admitted; how many may."""
        await self._until(lambda: self.free() > 0)
        return self.free()

    def claim_limits(self) -> ClaimLimits:
        """Return how many entries may be reclaimed right now, for the next call of `Handoff.claim`.

        Entries that began elsewhere before take at most half of the slots; a suspect is permitted where none is here
        and the pause after the last isolation is over. A last delivery waits until nothing of these runs here: if that
        killed this worker, it would be charged too.
        """
        free = self.free()
        started = max(1, self.size // 2) - self._reclaimed
        suspects = self._suspects == 0 and monotonic() >= self._next_isolation
        return ClaimLimits(free, max(0, min(free, started)), int(suspects), self._reclaimed == 0)

    def admit(self, entries: Sequence[Entry]) -> list[Delivery]:
        """Give each entry a slot, and renew its lease while its handler may run. At most `free()` entries."""
        self._taken += len(entries)
        self._reclaimed += sum(entry.delivery > 1 for entry in entries)
        return self._add(entries, State.LEASED, monotonic() + self._limit_s)

    def admit_suspect(self, entry: Entry) -> Delivery:
        """Take a suspect, which waits for `isolation`.

        Its lease is renewed without end: it has not begun yet.
        """
        self._suspects += 1
        (delivery,) = self._add([entry], State.WAITING_ALONE, float("inf"))
        return delivery

    @asynccontextmanager
    async def isolation(self, suspect: Delivery) -> AsyncIterator[None]:
        """Wait until nothing else runs here, then give the suspect a slot and admit nothing meanwhile.

        Waits `ISOLATION_S` at most (then for a slot): a handler that runs for minutes must not keep the other slots
        empty. Before its last delivery it waits as long as it takes: only an entry that has run alone may become a dead
        letter.
        """
        began = monotonic()
        self._isolated = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._isolation_s(suspect)):
                    await self._until(lambda: self._taken == 0)
            await self._until(lambda: self._taken < self.size)
            suspect.advance(Event.ISOLATE)
            suspect.takes_slot = True
            self._taken += 1
            self.limit_lease(suspect)
            yield
        finally:
            self._isolated = False
            pause_s = min(_PAUSE_FACTOR * (monotonic() - began), self._topic.lease_s)
            self._next_isolation = monotonic() + pause_s
            self._changed()

    async def until_ended_or_joined(self, suspect: Delivery) -> None:
        """Wait until an isolated suspect has ended, or has run long enough for others to begin next to it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._isolation_s(suspect)):
                await self._until(lambda: suspect.state is State.ENDED)

    def _isolation_s(self, suspect: Delivery) -> float | None:
        return None if suspect.entry.delivery >= self._topic.max_deliveries else ISOLATION_S

    def limit_lease(self, delivery: Delivery) -> None:
        """From now on the handler has its whole time limit; its lease is not renewed past it."""
        self._leases.add(delivery.key, delivery.lease, monotonic() + self._limit_s, self.stop)

    def extend_lease(self, delivery: Delivery) -> None:
        """Renew the lease without end, while the handler does not run."""
        self._leases.add(delivery.key, delivery.lease, float("inf"), self.stop)

    def stop(self, lease: Lease, reason: LeaseStatus) -> None:
        """Stop a handler whose run has ended, or whose lease is lost: its completion would be refused.

        Only while it is handled: a completion that is on its way learns the same from Redis. Handlers without a time
        limit (the orchestrator's) are not stopped: their effects do not depend on the lease.
        """
        key: DeliveryKey = (lease.stream, lease.entry, lease.delivery)
        self._leases.remove(key)
        delivery = self._deliveries.get(key)
        if delivery is None or delivery.state not in HANDLED or self._topic.timeout_s is None:
            return
        if reason is LeaseStatus.RUN_ENDED:
            if delivery.stop_reason is reason:
                return
            _log.info("stopping a step of an ended run", topic=self._topic.name, entry=lease.entry)
        else:
            _log.warning("lost the lease of an entry", topic=self._topic.name, entry=lease.entry, status=reason)
        delivery.stop(reason)

    def handled_steps(self, run: str) -> list[Lease]:
        """Leases of the steps of a run (`<task>.<run>`) whose handlers have begun."""
        leases = [one.lease for one in self._deliveries.values() if one.state in HANDLED]
        return [one for one in leases if one.run is not None and one.run.run == run]

    def stop_all(self) -> None:
        """Stop every handler that runs, because the drain time is over."""
        for delivery in self.in_states(HANDLED - {State.STOPPING}):
            delivery.stop(LeaseStatus.RELEASED)

    def in_states(self, states: Container[State]) -> list[Delivery]:
        """The deliveries that are in one of these states."""
        return [delivery for delivery in self._deliveries.values() if delivery.state in states]

    def settle(self, ended: Iterable[tuple[Delivery, Outcome]]) -> None:
        """End deliveries whose completion or return Redis has answered."""
        self._end(ended, Event.SETTLE)

    def abandon(self, deliveries: Iterable[Delivery]) -> None:
        """End deliveries that stay pending; another worker reclaims them when their leases end."""
        self._end([(delivery, Outcome.ABANDONED) for delivery in deliveries], Event.ABANDON)

    def abandon_all(self) -> None:
        """End whatever has not ended; for the end of the consumer."""
        self.abandon(list(self._deliveries.values()))

    async def until_empty(self) -> None:
        """Wait until every delivery has ended."""
        await self._until(lambda: not self._deliveries)

    async def until_no_handler_runs(self) -> None:
        """Wait until every handler has ended."""
        await self._until(lambda: not self.in_states(HANDLED))

    def _add(self, entries: Sequence[Entry], state: State, renew_until: float) -> list[Delivery]:
        topic, known, add, stop = self._topic.name, self._deliveries, self._leases.add, self.stop
        deliveries = [Delivery(topic, entry, self._lease(entry), state) for entry in entries]
        for delivery in deliveries:
            known[delivery.key] = delivery
            add(delivery.key, delivery.lease, renew_until, stop)
        self._running_gauge.inc(len(deliveries))
        return deliveries

    def _lease(self, entry: Entry) -> Lease:
        """Return the lease of an entry, with its run if it is a step.

        A message that tells the orchestrator about a task is worked on even if the run has ended.
        """
        in_flight = (
            in_flight_field_in(entry.fields.get(b"id", b"").decode("ascii", "replace")) if self._is_arm else None
        )
        if in_flight is None:
            return Lease(entry.stream, entry.id, entry.delivery)
        run = StepRun(self._keys.ended_runs, in_flight.rsplit(".", 2)[0], entry.fields.get(b"tenant", b""))
        return Lease(entry.stream, entry.id, entry.delivery, in_flight, run)

    def _end(self, ended: Iterable[tuple[Delivery, Outcome]], event: Event) -> None:
        outcomes: dict[Outcome, int] = {}
        slots, known, remove = 0, self._deliveries, self._leases.remove
        for delivery, outcome in ended:
            delivery.advance(event)
            del known[delivery.key]
            remove(delivery.key)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            slots += delivery.takes_slot
            if delivery.suspect:
                self._suspects -= 1
            elif delivery.entry.delivery > 1:
                self._reclaimed -= 1
        for outcome, count in outcomes.items():
            self._messages[outcome].inc(count)
        self._running_gauge.dec(sum(outcomes.values()))
        self._taken -= slots
        self._changed()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._change()

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _changed(self) -> None:
        """Let everyone who waits look again."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)
