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
