"""Whether and when a failed step is tried again. Pure: randomness is passed in."""

from dataclasses import dataclass

from octollm.topology import Retry


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Try again after `delay_ms`."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It has failed as often as it may; `failures` says how often."""

    failures: int


_PARK_MS = 60_000
_PARK_CAP_MS = 900_000
_PARKS = 100
"""How often a step that needs a person is tried again: within about a day."""
LONGEST_WAIT_S = 86400
"""A longer `Retry-After` is cut to this: nobody means to delay a step for ever."""


def after_failure(policy: Retry | None, failures: int, chance: float, retry_after_s: float = 0) -> RetryLater | GiveUp:
    """Decide about a step whose failure may pass.

    `failures`: including this one, from 1; `chance`: in [0, 1).

    `retry_after_s`: the least delay. Without a policy there is no retry. The delay is exponential with full jitter, so
    that steps which failed together do not come back together
    (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
    """
    if policy is None or failures >= policy.max_failures:
        return GiveUp(failures)
    # 2 ** 40 ms is 35 years: beyond the cap of any policy, and no huge numbers before it.
    ceiling = min(policy.cap_ms, policy.base_ms * 2 ** min(failures - 1, 40))
    # The jitter comes on top of `retry_after_s`: steps that were refused together must not come back together.
    return RetryLater(int(min(max(0.0, retry_after_s), LONGEST_WAIT_S) * 1000) + int(ceiling * chance))


def park(parked: int, failures: int, chance: float) -> RetryLater | GiveUp:
    """Decide about a step that needs a person.

    It is tried after a minute at most, then less often, down to every 15 minutes.

    `parked`: how often the step was parked before; `failures`: of the step so far; `chance`: in [0, 1).
    """
    if parked >= _PARKS:
        return GiveUp(failures)
    ceiling = min(_PARK_CAP_MS, _PARK_MS * 2 ** min(parked, 10))
    return RetryLater(int(ceiling * (1 + chance) / 2))
