"""One delivery of an entry to this process, as a state machine.

The states and the legal transitions between them are one table, `TRANSITIONS`; docs/delivery.md shows the same table.
A transition that is not in it raises, which ends the process: what this consumer believes about an entry is then wrong,
and its leases had better run out.
"""

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from octollm.protocol.handoff import Entry, LeaseStatus
from octollm.protocol.operations import DeliveryKey, Lease
from octollm.protocol.outcomes import Outcome


class State(StrEnum):
    """Where a delivery is between its arrival and its end."""

    LEASED = "leased"
    """It has a slot, and the next free pool task starts its handler."""
    WAITING_ALONE = "waiting_alone"
    """It is a suspect that was reclaimed from another worker, and waits until nothing else runs here."""
    RUNNING = "running"
    """Its handler runs."""
    WAITING_FOR_STORE = "waiting_for_store"
    """A store is unavailable; the handler, or the write before the commit, is tried again after a pause."""
    STOPPING = "stopping"
    """Its handler is being cancelled: the run has ended, the lease was lost, or the drain time is over."""
    COMMITTING = "committing"
    """The completion waits for, or is in, a call of the script `complete`."""
    RETURNING = "returning"
    """The entry is being given back as if its handler had not run."""
    ENDED = "ended"
    """It has an outcome. Nothing of it is kept."""


class Event(StrEnum):
    """What can happen to a delivery."""

    ISOLATE = "isolate"
    """Nothing else runs here any longer, or has not ended in time."""
    START = "start"
    """A task of the pool has taken it."""
    WAIT_FOR_STORE = "wait_for_store"
    """The handler raised StoreUnavailableError."""
    RESUME = "resume"
    """The pause for the store is over."""
    STOP = "stop"
    """Redis says that the run has ended or that the lease is lost, or the drain time is over."""
    COMMIT = "commit"
    """The handler has a result, or was stopped because its run has ended."""
    RETURN = "return"
    """The handler is at fault and the circuit breaker is open, or the consumer stops before the handler has ended."""
    SETTLE = "settle"
    """Redis has answered the completion or the return."""
    ABANDON = "abandon"
    """The entry stays pending here; another worker reclaims it when its lease ends."""


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.WAITING_ALONE, Event.ISOLATE): State.LEASED,
        (State.WAITING_ALONE, Event.RETURN): State.RETURNING,
        (State.WAITING_ALONE, Event.ABANDON): State.ENDED,
        (State.LEASED, Event.START): State.RUNNING,
        (State.LEASED, Event.RETURN): State.RETURNING,
        (State.LEASED, Event.ABANDON): State.ENDED,
        (State.RUNNING, Event.WAIT_FOR_STORE): State.WAITING_FOR_STORE,
        (State.RUNNING, Event.STOP): State.STOPPING,
        (State.RUNNING, Event.COMMIT): State.COMMITTING,
        (State.RUNNING, Event.RETURN): State.RETURNING,
        (State.RUNNING, Event.ABANDON): State.ENDED,
        (State.WAITING_FOR_STORE, Event.RESUME): State.RUNNING,
        (State.WAITING_FOR_STORE, Event.STOP): State.STOPPING,
        (State.WAITING_FOR_STORE, Event.ABANDON): State.ENDED,
        (State.STOPPING, Event.STOP): State.STOPPING,
        (State.STOPPING, Event.COMMIT): State.COMMITTING,
        (State.STOPPING, Event.RETURN): State.RETURNING,
        (State.STOPPING, Event.ABANDON): State.ENDED,
        (State.COMMITTING, Event.SETTLE): State.ENDED,
        (State.COMMITTING, Event.ABANDON): State.ENDED,
        (State.RETURNING, Event.SETTLE): State.ENDED,
        (State.RETURNING, Event.ABANDON): State.ENDED,
    }
)
"""State and event to the following state; every other pair is illegal."""
HANDLED = frozenset({State.RUNNING, State.WAITING_FOR_STORE, State.STOPPING})
"""States in which the handler has begun and has no result yet, so that it can be stopped."""


class IllegalTransitionError(Exception):
    """An event came to a delivery in a state that does not know it: a bug of this package."""


class Delivery:
    """One delivery and what its consumer knows about it. `DeliveryPool` owns it; one event loop."""

    __slots__ = ("entry", "intended", "key", "lease", "state", "stop_reason", "suspect", "takes_slot", "task", "topic")

    def __init__(self, topic: str, entry: Entry, lease: Lease, state: State = State.LEASED) -> None:
        """`state`: LEASED, or WAITING_ALONE for a suspect."""
        self.topic = topic
        self.entry = entry
        self.lease = lease
        self.key: DeliveryKey = (entry.stream, entry.id, entry.delivery)
        self.state = state
        self.takes_slot = state is State.LEASED
        """Whether it counts against the pool's size; a suspect does from its isolation on."""
        self.suspect = state is State.WAITING_ALONE
        self.task: asyncio.Task[None] | None = None
        """The pool's task that runs its handler; None until then."""
        self.stop_reason: LeaseStatus | None = None
        """Why the handler is being stopped: RUN_ENDED, RELEASED (the drain time is over), or how the lease was lost."""
        self.intended = Outcome.ABANDONED
        """Its outcome if Redis accepts the completion or the return."""

    def advance(self, event: Event) -> None:
        """Move to the state that follows. Raises IllegalTransitionError where the table has none."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            raise IllegalTransitionError(f"event {event} in state {self.state}, entry {self.key}")
        self.state = following

    def stop(self, reason: LeaseStatus) -> None:
        """Cancel the handler, once; a later reason replaces the earlier one."""
        first = self.state is not State.STOPPING
        self.advance(Event.STOP)
        self.stop_reason = reason
        if first and self.task is not None:
            self.task.cancel()

    def take_back_cancellation(self) -> bool:
        """Make its task usable for the next delivery, after `stop`; whether `stop` alone had cancelled the task.

        False also where it was not stopped: then somebody else cancelled the task, which has to end.
        """
        return self.stop_reason is not None and self.task is not None and self.task.uncancel() == 0
