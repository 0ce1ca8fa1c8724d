"""Whether and when a failed step is tried again. Pure: chance is passed in."""

from dataclasses import dataclass

from octollm.topology import Retry


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after `delay_ms`."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It has failed as often as the topic allows."""

    failures: int


_PARK_MS = 60_000
_PARK_CAP_MS = 900_000
_PARKS = 100
"""How often a step that needs a person is looked at again: within about a day."""
LONGEST_WAIT_S = 86400
"""A longer `Retry-After` is cut to this: nobody means to hold a step for ever."""


def decide(policy: Retry, failures: int, chance: float, retry_after_s: float = 0) -> Again | GiveUp:
    """`failures`: including this one, from 1; `chance` in [0, 1); `retry_after_s`: not before that, whatever comes out.

    Exponential with full jitter: anything from nothing to the whole pause, so that steps which failed together
    do not come back together (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
    """
    if failures >= policy.max_failures:
        return GiveUp(failures)
    # 2 ** 40 ms is 35 years: beyond the cap of any policy, and no huge numbers before it.
    ceiling = min(policy.cap_ms, policy.base_ms * 2 ** min(failures - 1, 40))
    # On top of what was asked for: who was sent away together must not come back together.
    return Again(int(min(max(0.0, retry_after_s), LONGEST_WAIT_S) * 1000) + int(ceiling * chance))


def park(attempt: int, failures: int, chance: float) -> Again | GiveUp:
    """When a step that needs a person is looked at again: after a minute or less, then rarer, at last every quarter of
    an hour. `attempt`, `failures`: of the step that could not be done; what lies between them are the looks before.
    """
    parks = max(0, attempt - 1 - failures)
    if parks >= _PARKS:
        return GiveUp(failures)
    ceiling = min(_PARK_CAP_MS, _PARK_MS * 2 ** min(parks, 10))
    return Again(int(ceiling * (1 + chance) / 2))
