"""Judges an unforeseen exception.

It says whether a retry can help, and whether the process itself is at fault. Pure.

The same input always leads to the same `ValueError`; a retry cannot help, and the process is well. A missing library
or a full disk is a fault of the process: it fails on every input, and another process or a later attempt may succeed.
"""

import csv
import re
import struct
import zlib

from octollm.errors import OctoError

_DETERMINISTIC = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    csv.Error,
    LookupError,
    MemoryError,
    NotImplementedError,
    OctoError,
    re.error,
    RecursionError,
    struct.error,
    SyntaxError,
    TypeError,
    ValueError,
    zlib.error,
)
_CODE = (AssertionError, AttributeError, NotImplementedError, TypeError)
"""Deterministic exceptions that a wrong release raises on every input, and wrong code on some."""
_MESSAGE_LENGTH = 500


def is_deterministic(error: BaseException) -> bool:
    """Whether the same input certainly leads to this exception again."""
    return isinstance(error, _DETERMINISTIC) and not isinstance(error, OSError)


def may_be_process_fault(error: BaseException) -> bool:
    """Whether the process may fail on every input like this, so that its circuit breaker has to count it."""
    return not is_deterministic(error) or isinstance(error, _CODE)


def describe(error: BaseException) -> str:
    """Return the class and the message of an exception, for an error message.

    The message is cut to 500 characters.
    """
    message = str(error).strip()[:_MESSAGE_LENGTH]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
