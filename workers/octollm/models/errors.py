"""From what a provider's server says is wrong to our errors. Pure.

What the server writes is only passed on where it is about the form of our request, cut and without the key: servers
quote keys and prompts.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from octollm.errors import NeedsPersonError, PermanentError, TransientError

_SAID = 300
_PASSING = frozenset({408, 409, 425, 429})
_NO_CREDIT = frozenset({"insufficient_quota", "billing_error", "billing_hard_limit_reached"})
_TOO_LONG = frozenset({"context_length_exceeded", "string_above_max_length"})
# Inside a stream the request was taken, so an error that ends it is the server's, except these.
_FOR_GOOD = frozenset({"invalid_request_error", "invalid_prompt", "content_filter", "bio_policy"})
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|tok)[-_][A-Za-z0-9_*.-]{6,}|Bearer\s+\S+", re.IGNORECASE)


def of_status(
    provider: str, model: str, status: int, *, kind: str = "", said: str = "", retry_after_s: float | None = None
) -> TransientError | PermanentError | NeedsPersonError:
    """`status`: of the answer; `kind`: the server's own name of the fault; `said`: its sentence."""
    if kind in _NO_CREDIT or status == 402:
        return NeedsPersonError(
            "model_no_credit", f"{provider}: the account has no credit left; add some or use another key"
        )
    if status in _PASSING or status >= 500:
        code = "model_rate_limited" if status == 429 else "model_unavailable"
        return TransientError(code, f"{provider} answered {status} {kind or 'without a reason'}", retry_after_s)
    if status in (401, 403):
        return NeedsPersonError(
            "model_refused_key", f"{provider} refuses the key ({status}); check {_key_of(provider)} and its rights"
        )
    if status == 404:
        return NeedsPersonError("model_unknown", f"{provider} does not know the model {model}; correct models.model")
    if status == 413 or kind in _TOO_LONG:
        return PermanentError("model_input_too_long", f"the question is longer than {provider} {model} takes")
    return PermanentError(
        "model_bad_request", f"{provider} refuses the request ({status} {kind}): {without_keys(said)}"
    )


def in_stream(
    provider: str, model: str, kind: str, said: str = ""
) -> TransientError | PermanentError | NeedsPersonError:
    """A fault inside an answer that had begun well (status 200)."""
    if kind in _FOR_GOOD | _NO_CREDIT | _TOO_LONG or kind.endswith("_policy_violation"):
        return of_status(provider, model, 400, kind=kind, said=said)
    return TransientError("model_unavailable", f"{provider} broke off its answer: {kind or 'without a reason'}")


def broken_stream(provider: str) -> TransientError:
    """The connection ended, or held nonsense, before the answer did."""
    return TransientError("model_stream_broken", f"{provider}: the answer ended before it was complete")


def unreachable(provider: str) -> TransientError:
    """There was no answer at all."""
    return TransientError("model_unreachable", f"{provider} cannot be reached")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds the server asks to wait; None if it does not say.

    That is `retry-after-ms`, or `retry-after` as seconds or as a date. A date counts from the server's own `date`,
    because the clock of this machine may be wrong.
    """
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / per_second
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    until = _date(headers.get("retry-after", ""))
    if until is None:
        return None
    return max(0.0, (until - (_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds())


def _date(text: str) -> datetime | None:
    """Return the time that a header names; None if it names none."""
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _key_of(provider: str) -> str:
    return "ANTHROPIC_API_KEY" if provider == "anthropic" else "OPENAI_API_KEY"


def without_keys(text: str) -> str:
    """The start of a server's sentence, without whatever looks like a key."""
    short = _KEY_LIKE.sub("(key)", " ".join(text.split()))[:_SAID]
    return short or "no reason given"
