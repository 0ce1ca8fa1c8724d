"""The delivery that the current task works on, and how log lines describe it."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from octollm.contracts.ids import parse_message_id
from octollm.observability.logging import LOG_FIELDS
from octollm.protocol.fields import clean

if TYPE_CHECKING:
    from octollm.consumer.delivery import Delivery

CURRENT: ContextVar["Delivery | None"] = ContextVar("delivery", default=None)
"""The delivery that the current task works on; None outside of handlers."""


def set_current(delivery: "Delivery") -> None:
    """Make this the delivery that the current task works on; its log lines name it."""
    CURRENT.set(delivery)
    LOG_FIELDS.set(delivery_fields)


def delivery_count() -> int:
    """Return how often the entry of the current task was delivered, from 1; outside of handlers 1."""
    current = CURRENT.get()
    return 1 if current is None else current.entry.delivery


def delivery_fields() -> Mapping[str, object]:
    """Return the fields of the current task's delivery for a log line.

    These are topic, trace, message, tenant, task, step and attempt.

    The entry is parsed only when there is a line.
    """
    current = CURRENT.get()
    if current is None:
        return {}
    fields = current.entry.fields
    message = clean(fields.get(b"id"))
    found: dict[str, object] = {
        "topic": current.topic,
        "trace": clean(fields.get(b"traceparent"))[3:35],
        "message": message,
        "tenant": clean(fields.get(b"tenant")),
    }
    step = parse_message_id(message)
    if step is not None:
        found |= {"task": step.task, "step": step.step, "attempt": step.attempt}
    return found
