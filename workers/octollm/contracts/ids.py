"""Names of tasks, steps and messages, and the one form of time.

Rust's twin is `schemas/rust/src/ids.rs`.
"""

import os
import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_TASK = r"l[0-9]{1,4}-[0-9a-hjkmnp-tv-z]{26}"
_TASK_ID = re.compile(_TASK)
_NUMBER = r"(0|[1-9][0-9]{0,9})"
_MESSAGE = re.compile(rf"({_TASK})\.{_NUMBER}\.([a-z][a-z0-9_-]{{0,62}})\.{_NUMBER}\.{_NUMBER}")
_MOST, _MOST_ROUNDS = 2**31 - 1, 1000  # as in the schemas


class StepIdent(NamedTuple):
    """One attempt at one step, as a message id names it."""

    task: str
    run: int
    step: str
    round: int
    attempt: int

    @property
    def in_flight_field(self) -> str:
        """The step's field in the in-flight index: the ident without its attempt."""
        return in_flight_field(self.task, self.run, self.step, self.round)


def new_ulid() -> str:
    """26 characters, sortable by the millisecond: 48 bits of time, 80 of chance (github.com/ulid/spec)."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def new_task_id(lane: str) -> str:
    """`<lane>-<ulid>`."""
    return f"{lane}-{new_ulid()}"


def lane_of(task: str) -> str:
    """The lane a task id carries."""
    return task.partition("-")[0]


def in_flight_field(task: str, run: int, step: str, round: int) -> str:  # noqa: A002  the field's own word
    """A step's identity: `<task>.<run>.<step>.<round>`."""
    return f"{task}.{run}.{step}.{round}"


def message_id(task: str, run: int, step: str, round: int, attempt: int) -> str:  # noqa: A002  as above
    """Id of a message about one attempt: `<task>.<run>.<step>.<round>.<attempt>`."""
    return f"{task}.{run}.{step}.{round}.{attempt}"


def parse_message_id(text: str) -> StepIdent | None:
    """The ident in a message id, or None where it is not one of a step."""
    found = _MESSAGE.fullmatch(text)
    if found is None:
        return None
    ident = StepIdent(found[1], int(found[2]), found[3], int(found[4]), int(found[5]))
    fits = 1 <= ident.run <= _MOST and ident.round <= _MOST_ROUNDS and 1 <= ident.attempt <= _MOST
    return ident if fits else None


def in_flight_field_in(text: str) -> str | None:
    """The step's field in a message id, or None where it is not one of a step.

    Its numbers are not judged.
    """
    return None if _MESSAGE.fullmatch(text) is None else text.rpartition(".")[0]


def as_text(moment: datetime) -> str:
    """In UTC, RFC 3339 with milliseconds and `Z`: the one form of time in messages and answers."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def later(moment: str, seconds: int) -> str:
    """That many seconds after a time, both in the one form of time."""
    return as_text(datetime.fromisoformat(moment) + timedelta(seconds=seconds))


def utc_now() -> str:
    """Now, in the one form of time."""
    return _at_ms(time.time_ns() // 1_000_000)


@lru_cache(maxsize=2)  # a busy worker asks several times within one millisecond
def _at_ms(ms: int) -> str:
    return f"{_until_seconds(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=2)
def _until_seconds(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def is_task_id(text: str) -> bool:
    """Whether a task could have this id."""
    return _TASK_ID.fullmatch(text) is not None
