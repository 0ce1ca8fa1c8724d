"""Opaque cursors: the sort values of the last row of a page.

Rows added or removed between pages shift nothing.

A cursor is a JSON list in base64url. Callers must treat it as opaque; anything else is refused.
"""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from octollm.errors import ParameterError

FIELD = "cursor"
_MAX_LENGTH = 1000
_MIN_TIME, _MAX_TIME = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_MAX_INTEGER = 2**63 - 1


def write_cursor(values: Sequence[str | int | datetime]) -> str:
    """Return a cursor. `values`: of the last row of a page, in the order of the list's ORDER BY."""
    parts = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def read_cursor(text: str | None, *kinds: type[str | int | datetime]) -> tuple[Any, ...]:
    """Return the values in a cursor, one per type in `kinds`; all None without a cursor.

    Raises ParameterError when `text` is not a cursor of this list.
    """
    if text is None:
        return (None,) * len(kinds)
    try:
        return tuple(_value(part, kind) for part, kind in zip(_parts(text), kinds, strict=True))
    except (binascii.Error, ValueError) as error:
        raise ParameterError(FIELD, "is not a cursor of this list; use `next` of an earlier page unchanged") from error


def _parts(text: str) -> list[object]:
    if len(text) > _MAX_LENGTH:
        raise ValueError("too long")
    padded = text.encode("ascii") + b"=" * (-len(text) % 4)
    parts = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    if not isinstance(parts, list):
        raise ValueError("not a list")  # noqa: TRY004  the caller handles one type of error
    return parts


def _value(part: object, kind: type[str | int | datetime]) -> str | int | datetime:
    if kind is datetime and isinstance(part, str):
        moment = datetime.fromisoformat(part)
        if moment.tzinfo is None or not _MIN_TIME <= moment <= _MAX_TIME:
            raise ValueError("time out of range")
        return moment
    if kind is int and isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= _MAX_INTEGER:
        return part
    if kind is str and isinstance(part, str) and "\0" not in part:
        return part
    raise ValueError("unexpected type")
