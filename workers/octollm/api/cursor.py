"""Opaque cursors: where a page ended, by the values of its order. Rows that come or go meanwhile shift nothing.

A cursor is base64url of a JSON list. Callers must not make or read them; what is not ours is refused by name.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from octollm.errors import ParameterError

FIELD = "cursor"
_LONGEST = 1000
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_MOST = 2**63 - 1


def write_cursor(values: Sequence[str | int | datetime]) -> str:
    """From the order's values in the last row of a page."""
    parts = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def read_cursor(text: str | None, *kinds: type[str | int | datetime]) -> tuple[Any, ...]:
    """The values, one per kind; all None without a cursor. Raises ParameterError for what is no cursor of this list."""
    if text is None:
        return (None,) * len(kinds)
    try:
        return tuple(_value(part, kind) for part, kind in zip(_parts(text), kinds, strict=True))
    except (binascii.Error, ValueError) as error:
        raise ParameterError(FIELD, "is not a cursor of this list; take `next` of an earlier page as it is") from error


def _parts(text: str) -> list[object]:
    if len(text) > _LONGEST:
        raise ValueError("too long")
    padded = text.encode("ascii") + b"=" * (-len(text) % 4)
    parts = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    if not isinstance(parts, list):
        raise ValueError("no list")  # noqa: TRY004  one kind of error for what is no cursor
    return parts


def _value(part: object, kind: type[str | int | datetime]) -> str | int | datetime:
    if kind is datetime and isinstance(part, str):
        moment = datetime.fromisoformat(part)
        if moment.tzinfo is None or not _FIRST <= moment <= _LAST:
            raise ValueError("no time of ours")
        return moment
    if kind is int and isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= _MOST:
        return part
    if kind is str and isinstance(part, str) and "\0" not in part:
        return part
    raise ValueError("another kind of value")
