"""Refuses JSON on which two parsers may disagree, before any schema looks at it.

The same rules hold in `schemas/rust/src/strict_json/`: valid UTF-8, one value and nothing after it, no
duplicate keys, no NaN, no Infinity and no number that overflows a double, integers within 64 bits and none that is
`-0` (a float to some), bounded nesting, no NUL and no lone surrogate. Messages quote nothing of the text: it may be
personal data, and they end in dead letters.
"""

import json
import math
import re
from typing import NoReturn

import orjson

from octollm.errors import ContractError

MAX_DEPTH = 64
"""Levels of arrays and objects; the top level is 1."""

# A string without an end is taken whole as well; trying again from each of its quotes would be quadratic.
_BRACKETS_AND_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
_LONGEST_INTEGER = 20  # characters of both ends; int() on far longer ones would be slow
# In here `find` stands where `in` would read better: CPython 3.11 asks first whether what is looked for is a number,
# and raises and drops an error for each piece of text that is none.


def check(data: bytes, max_depth: int = MAX_DEPTH) -> None:
    """Raises ContractError (`malformed`) that says what is wrong, and where."""
    check_depth(data, max_depth)  # first: the parser recurses
    if not _surely_strict(data):
        _check_slowly(data)


def check_written(data: bytes, max_depth: int = MAX_DEPTH) -> None:
    """The same for what orjson has just written.

    Such text can only be too deep or hold a NUL: orjson refuses the rest itself, and writes numbers that are none as
    null.
    """
    check_depth(data, max_depth)
    if data.find(b"\\u0000") >= 0:
        _check_slowly(data)


def _surely_strict(data: bytes) -> bool:
    """True only for what `_check_slowly` takes, at a tenth of its time; False leaves the judgement to it.

    Whatever two parsers could read in two ways, a reader that makes one choice writes in another way than it found it.
    Our own messages are written by orjson, or just as it would.
    """
    if data.find(b"\\u") >= 0:
        return False
    try:
        return orjson.dumps(orjson.loads(data)) == data
    except ValueError:
        return False


def _check_slowly(data: bytes) -> None:
    """Judges everything and knows where the fault is."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ContractError("malformed", f"not valid UTF-8 at byte {error.start}") from error
    if text.startswith("\ufeff"):
        raise ContractError("malformed", "starts with a byte order mark; send plain UTF-8")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ContractError("malformed", f"not JSON at character {error.pos}: {error.msg}") from error
    if "\\u" in text:  # the only way past UTF-8 to a surrogate or a NUL
        _check_strings(value)


def check_depth(data: bytes, most: int) -> None:
    """Raises ContractError (`malformed`) on more than `most` levels of nesting. Looks at nothing else."""
    if data.count(b"[") + data.count(b"{") <= most:
        return
    depth = 0
    for found in _BRACKETS_AND_STRINGS.finditer(data):
        first = found[0][0]
        if first in b"[{":
            depth += 1
            if depth > most:
                raise ContractError("malformed", f"more than {most} levels of nesting at byte {found.start()}")
        elif first in b"]}":
            depth -= 1


def _check_strings(value: object) -> None:
    """Bounded recursion: the depth was checked before."""
    if isinstance(value, str):
        if "\0" in value:
            raise ContractError("malformed", "contains a NUL character (\\u0000)")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ContractError("malformed", "contains half of a surrogate pair")
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key)
            _check_strings(item)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    known = dict(pairs)
    if len(known) != len(pairs):
        raise ContractError("malformed", "the same key twice in one object")
    return known


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER or not _LOWEST <= int(text) <= _HIGHEST:
        raise ContractError("malformed", "an integer beyond 64 bits")
    if text == "-0":
        raise ContractError("malformed", "the integer -0; write 0")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ContractError("malformed", "a number beyond the range of a double")
    return number


def _constant(text: str) -> NoReturn:
    raise ContractError("malformed", f"{text} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
