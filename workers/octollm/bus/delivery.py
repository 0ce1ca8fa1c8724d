"""One delivery of an entry while this process works on it, and what logs say about it."""

import asyncio
from contextvars import ContextVar
from enum import Enum, auto

from structlog.typing import EventDict, WrappedLogger

from octollm.bus.handoff import Entry, Standing
from octollm.bus.letters import clean
from octollm.bus.operations import Held, Key
from octollm.bus.outcomes import Outcome
from octollm.contracts.ids import parse_message_id


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

    def __init__(self, topic: str, entry: Entry, held: Held, place: Place) -> None:
        self.topic = topic
        self.entry = entry
        self.held = held
        self.key: Key = (entry.stream, entry.id, entry.delivery)
        self.place = place
        self.task: asyncio.Task[None] | None = None
        """Whoever works on it, from the moment it has begun."""
        self.handling = False
        """Whether its handler runs; what is being finished is no longer handled."""
        self.stopped: Standing | None = None
        """Why its handler is being stopped: it was cancelled, or the lease was lost."""
        self.meant = Outcome.ABANDONED
        """How it ends if Redis agrees."""
        self.over: asyncio.Future[None] | None = None
        """Set when it has ended, where somebody waits for that."""


CURRENT: ContextVar[Delivery | None] = ContextVar("delivery", default=None)
"""What the current task works on."""


def delivery_count() -> int:
    """Delivery count of the entry that is being worked on; what is written for a step names it."""
    current = CURRENT.get()
    return 1 if current is None else current.entry.delivery


def add_delivery(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor of structlog: whose work a line is about. Read from the entry only when there is a line."""
    current = CURRENT.get()
    if current is None:
        return event
    fields = current.entry.fields
    message = clean(fields.get(b"id"))
    event.setdefault("topic", current.topic)
    event.setdefault("trace", clean(fields.get(b"traceparent"))[3:35])
    event.setdefault("message", message)
    event.setdefault("tenant", clean(fields.get(b"tenant")))
    step = parse_message_id(message)
    if step is not None:
        event.setdefault("task", step.task)
        event.setdefault("step", step.step)
        event.setdefault("attempt", step.attempt)
    return event
