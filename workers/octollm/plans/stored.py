"""Normalizes JSON values to what Postgres returns for them, with sorted keys. Pure.

What a reference finds must not depend on whether its value was read from Postgres, cached, or received from an arm.

`jsonb` has its own order of keys and stores numbers as decimals: it returns `1e16` as an integer and `-0.0` as `0.0`.
"""

import re
from decimal import Decimal
from typing import Any

import orjson

# How orjson writes the floats in question. A string may match too, which only costs a walk.
_SUSPECT = re.compile(rb"\de|-0\.0")
_EXPONENT_FROM = 1e16
_LEAST, _MOST = -(2**63), 2**64 - 1
"""Integers that orjson reads as integers; it reads larger ones as floats."""


def as_stored(value: Any) -> Any:  # noqa: ANN401  any JSON value
    """Return an equal value in the form that Postgres returns.

    Raises TypeError for an integer beyond 64 bits.
    """
    raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    found = orjson.loads(raw)
    return _numbers(found) if _SUSPECT.search(raw) else found


def _numbers(value: Any) -> Any:  # noqa: ANN401  as above
    """Bounded recursion: messages are at most 64 levels deep."""
    if isinstance(value, float):
        if value == 0:
            return 0.0
        whole = int(Decimal(repr(value))) if abs(value) >= _EXPONENT_FROM else None  # the written digits
        return value if whole is None or not _LEAST <= whole <= _MOST else whole
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return value
