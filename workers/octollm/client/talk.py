"""A conversation over HTTP without any HTTP in it: generators yield what to ask and when to pause, and are sent the
replies. `Client` and `AsyncClient` carry the same ones out, so that both behave alike. Opens no connection.
"""

import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from octollm.client.replies import Reply, refuse
from octollm.errors import BusyError, UnreachableError

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True)
class Ask:
    """One request. Whoever carries it out raises UnreachableError where no reply comes."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None


@dataclass(frozen=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


Result = TypeVar("Result")
Talk: TypeAlias = Generator[Ask | Pause, Reply | None, Result]


def patiently(ask: Ask, patience_s: float) -> Talk[Reply]:
    """The reply, of status 2xx. For requests that may be sent twice: what may pass is waited out for `patience_s`.

    Raises what `refuse` does, and UnreachableError.
    """
    deadline = time.monotonic() + patience_s
    pause = _FIRST_PAUSE_S
    while True:
        try:
            reply = yield from once(ask)
            refuse(reply)
        except (BusyError, UnreachableError) as error:
            wait = jittered(pause)
            if isinstance(error, BusyError) and error.retry_after_s is not None:
                wait += error.retry_after_s
            if time.monotonic() + wait > deadline:
                raise
        else:
            return reply
        yield Pause(wait)
        pause = min(pause * 2, _LONGEST_PAUSE_S)


def once(ask: Ask) -> Talk[Reply]:
    """The reply, whatever it says."""
    reply = yield ask
    if reply is None:
        raise TypeError("an Ask is answered with a Reply")
    return reply


def jittered(pause_s: float) -> float:
    """Many clients that lost the same server must not all come back in the same instant."""
    return pause_s * random.uniform(0.5, 1.0)  # noqa: S311  no secret
