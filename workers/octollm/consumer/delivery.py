"""One delivery of an entry while this process works on it."""

import asyncio
from enum import Enum, auto

from octollm.protocol.handoff import Entry, LeaseStatus
from octollm.protocol.operations import Key, Lease
from octollm.protocol.outcomes import Outcome


class Place(Enum):
    """What a delivery takes of its consumer's room."""

    SLOT = auto()
    QUEUE = auto()
    """Nothing yet: it waits to be alone."""
    ALL = auto()
    """It is alone, in quarantine."""


class Delivery:
    """What a consumer knows about it. Changed by that consumer only."""

    __slots__ = ("entry", "handling", "held", "key", "meant", "over", "place", "stopped", "task", "topic")

    def __init__(self, topic: str, entry: Entry, held: Lease, place: Place) -> None:
        self.topic = topic
        self.entry = entry
        self.held = held
        self.key: Key = (entry.stream, entry.id, entry.delivery)
        self.place = place
        self.task: asyncio.Task[None] | None = None
        """Whoever works on it, from the moment it has begun."""
        self.handling = False
        """Whether its handler runs; what is being finished is no longer handled."""
        self.stopped: LeaseStatus | None = None
        """Why its handler is being stopped: it was cancelled, or the lease was lost."""
        self.meant = Outcome.ABANDONED
        """How it ends if Redis agrees."""
        self.over: asyncio.Future[None] | None = None
        """Set when it has ended, where somebody waits for that."""
