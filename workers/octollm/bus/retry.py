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


def decide(policy: Retry, failures: int, chance: float) -> Again | GiveUp:
    """`failures`: including this one, from 1; `chance` in [0, 1).

    Exponential with full jitter: anything from nothing to the whole pause, so that steps which failed together
    do not come back together (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
    """
    if failures >= policy.max_failures:
        return GiveUp(failures)
    # 2 ** 40 ms is 35 years: beyond the cap of any policy, and no huge numbers before it.
    ceiling = min(policy.cap_ms, policy.base_ms * 2 ** min(failures - 1, 40))
    return Again(int(ceiling * chance))
