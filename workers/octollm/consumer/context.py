"""The delivery that the current task works on, for log lines. Every command logs, so nothing heavy is imported here."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

from structlog.typing import EventDict, WrappedLogger

from octollm.contracts.ids import parse_message_id
from octollm.protocol.fields import clean

if TYPE_CHECKING:
    from octollm.consumer.delivery import Delivery

CURRENT: ContextVar["Delivery | None"] = ContextVar("delivery", default=None)
"""The delivery that the current task works on; None outside of handlers."""


def delivery_count() -> int:
    """Return how often the entry of the current task was delivered, from 1; outside of handlers 1."""
    current = CURRENT.get()
    return 1 if current is None else current.entry.delivery


def add_delivery(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add topic, trace, message, tenant, task, step and attempt to a log line; a processor of structlog.

    The entry is parsed only when there is a line.
    """
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
