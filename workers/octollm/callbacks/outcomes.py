"""How an attempt to send a callback can end, and what follows from it."""

from enum import StrEnum
from typing import NamedTuple

from prometheus_client import Counter

ATTEMPTS = Counter("octollm_callback_attempts_total", "Attempts to send a callback, by how they ended.", ("outcome",))


class Outcome(StrEnum):
    """How an attempt ended. Every attempt has exactly one outcome; it is also the metric's label."""

    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    REFUSED = "refused"
    """The receiver answered another status."""
    GONE = "gone"
    """The receiver answered 410: it wants no more callbacks."""
    TIMEOUT = "timeout"
    """There was no answer in time."""
    UNREACHABLE = "unreachable"
    """The name could not be resolved, or the connection failed."""
    FORBIDDEN = "forbidden"
    """Callbacks must not be sent there; nothing was sent."""
    NOT_CONFIGURED = "not_configured"
    """callbacks.yaml has no secret or no longer has the endpoint; nothing was sent."""
    INTERNAL = "internal"
    """OctoLLM failed; its log says why. No other callback is affected."""


FINAL = frozenset({Outcome.GONE, Outcome.FORBIDDEN})
"""Outcomes after which the callback fails at once: another attempt would end the same way."""
ENDPOINT_FAILURES = frozenset({Outcome.REFUSED, Outcome.GONE, Outcome.TIMEOUT, Outcome.UNREACHABLE})
"""Outcomes that count as a failure of the endpoint."""


class Result(NamedTuple):
    """What came of one attempt."""

    outcome: Outcome
    status: int | None = None
    """Of HTTP, if the receiver answered."""
    detail: str | None = None
    """Why the attempt failed, as a sentence."""
    response: str | None = None
    """The beginning of the answer's body, fit to be shown."""
    retry_after_s: float | None = None
    """How long the receiver asks to wait."""
