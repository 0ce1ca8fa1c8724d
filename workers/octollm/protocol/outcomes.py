"""The outcome of every delivery, as an enum that is the metric's label as well, and the metrics themselves."""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import NamedTuple

from prometheus_client import Counter, Gauge

from octollm.protocol.operations import Operation
from octollm.protocol.timings import Timings


class Outcome(StrEnum):
    """How a delivery ended. Nothing vanishes silently: each one ends in exactly one of these."""

    DONE = "done"
    """Worked on, and what comes next is on its stream."""
    FAILED = "failed"
    """The step cannot succeed; the orchestrator is informed."""
    RETRYING = "retrying"
    """The step's next attempt is on the schedule."""
    PARKED = "parked"
    """The step needs a person, and its next attempt is on the schedule at no cost."""
    DEAD = "dead"
    """Given up on; a dead letter says why."""
    RUN_ENDED = "run_ended"
    """Its run has ended; nothing was published."""
    STALE = "stale"
    """The lease was lost; its new holder reports."""
    GONE = "gone"
    """The entry no longer existed; nothing was written."""
    RELEASED = "released"
    """Given back uncharged: read but not started, or stopped because the drain time was over."""
    RETURNED = "returned"
    """The handler failed while the circuit breaker was open: given back as if it had not been started."""
    ABANDONED = "abandoned"
    """Left pending, by a fault of ours or because Redis is unavailable; another worker reclaims it after its lease."""


class HandlerResult(NamedTuple):
    """What a handler makes of an entry: the outcome, and what to write when the entry is finished."""

    outcome: Outcome
    operations: Sequence[Operation]
    in_flight: str = ""
    """The step's in-flight field; empty: not a step's message."""
    before_commit: Callable[[], Awaitable[None]] | None = None
    """Stores what must exist before the entry is finished. May raise StoreUnavailableError: then it alone is called
    again.
    """
    handler_fault: bool = False
    """Whether this may be the process's own fault, and not the message's; the circuit breaker counts it."""


MESSAGES = Counter("octollm_messages_total", "Deliveries by how they ended.", ("topic", "outcome"))
RUNNING_MESSAGES = Gauge("octollm_running_messages", "Entries that are being worked on.", ("topic",))
QUEUED_MESSAGES = Gauge(
    "octollm_queued_messages",
    "Messages in tenant queues, waiting for capacity on their stream; every process shows the same ones.",
    ("lane", "topic", "priority"),
)
HANDLER_SECONDS = Timings(
    "octollm_handler_seconds",
    "From the start of a handler to its end.",
    (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
REDIS_ERRORS = Counter("octollm_redis_errors_total", "Errors of Redis that were waited out.", ("topic", "doing"))
