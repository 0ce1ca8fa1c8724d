"""In what every message ends, as an enum that is the metric's label too, and the counters themselves."""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from prometheus_client import Counter, Gauge

from octollm.protocol.operations import Operation
from octollm.protocol.timings import Timings


class Outcome(StrEnum):
    """Nothing vanishes silently: each delivery of an entry ends in exactly one of these."""

    DONE = "done"
    """Worked on, and what comes next is on its stream."""
    FAILED = "failed"
    """The step cannot succeed; the orchestrator knows."""
    RETRYING = "retrying"
    """The step's next attempt is on the schedule."""
    PARKED = "parked"
    """The step needs a person and costs nothing meanwhile; it is on the schedule, to be looked at again."""
    DEAD = "dead"
    """Given up on; a dead letter tells why."""
    CANCELLED = "cancelled"
    """Its task was cancelled; nothing was sent."""
    STALE = "stale"
    """The lease was lost; whoever has it now reports."""
    GONE = "gone"
    """The entry was no longer there; nothing was written."""
    RELEASED = "released"
    """Read but not started; given back."""
    RETURNED = "returned"
    """The handler broke and the fuse is out: given back as if it had not been begun."""
    ABANDONED = "abandoned"
    """Left pending (a fault of ours, or cut off while draining); someone takes it over when its lease ends."""


class HandlerResult(NamedTuple):
    """What a handler makes of an entry: how it ended, and what is to be written as it is finished."""

    outcome: Outcome
    operations: Sequence[Operation]
    in_flight: str = ""
    """The step's in-flight field; empty: not a step's message."""
    before: Callable[[], Awaitable[None]] | None = None
    """What has to be stored before the entry is finished. May raise StoreUnavailableError: then it alone is tried
    again.
    """
    broke: bool = False
    """Whether this is how the handler's own fault ends; the fuse counts it."""


MESSAGES = Counter("octollm_messages_total", "Deliveries by how they ended.", ("topic", "outcome"))
RUNNING = Gauge("octollm_running_messages", "Entries being worked on.", ("topic",))
WAITING = Gauge(
    "octollm_queued_messages",
    "Messages that wait for room on their stream, as this process saw them last; every process shows the same ones.",
    ("lane", "topic", "priority"),
)
SECONDS = Timings(
    "octollm_handler_seconds",
    "From the start of a handler to its end.",
    (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
REDIS_ERRORS = Counter("octollm_redis_errors_total", "Errors of Redis that were waited out.", ("topic", "doing"))
