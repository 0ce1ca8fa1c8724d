"""When a callback is sent again. Pure."""

import random
from collections.abc import Sequence

DELAYS_S: tuple[float, ...] = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Delays between attempts, as the Standard Webhooks specification proposes: ten attempts in three days."""
_JITTER = 0.2
_MAX_DELAY_S = 86_400.0


def next_delay_s(failures: int, retry_after_s: float | None, delays_s: Sequence[float] = DELAYS_S) -> float | None:
    """Return the seconds until the next attempt; None if there is none.

    `failures`: how many attempts have failed, from 1. `retry_after_s`: what the receiver asked for, at most a day.
    The delay is up to a fifth longer than planned, so that receivers that recover are not flooded.
    """
    if failures > len(delays_s):
        return None
    planned = delays_s[failures - 1] * random.uniform(1, 1 + _JITTER)  # noqa: S311  no secret
    return max(planned, min(retry_after_s or 0, _MAX_DELAY_S))
