"""What a process of the pool answers.

Both ends are the same release, and the pipe is private: pickle is safe here.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Any, TypeAlias

HEADER = Struct("!Q")
"""Length of the pickle that follows, in bytes."""


@dataclass(frozen=True, slots=True)
class Ok:
    """The function returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Permanent:
    """The function raised PermanentError."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised an exception that is no PermanentError."""

    message: str
    may_pass: bool = False


Reply: TypeAlias = Ok | Permanent | Failed
