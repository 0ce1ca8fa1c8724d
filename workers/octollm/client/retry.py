"""When to send a request again, and when to give up. Sleeps nowhere and opens no connection."""

import random
import time
from collections.abc import Iterator

from octollm.errors import BusyError, UnreachableError

_FIRST_DELAY_S = 0.1
_MAX_DELAY_S = 5.0
_FIRST_POLL_S = 0.05
_MAX_POLL_S = 1.0


class Retry:
    """Jittered exponential backoff within a time budget.

    The budget runs from the last success, or from the start while there is none.
    """

    def __init__(self, retry_for_s: float) -> None:
        """Start the budget of `retry_for_s` seconds."""
        self._retry_for_s = retry_for_s
        self._delay_s = _FIRST_DELAY_S
        self._last_success = time.monotonic()
        self._connected_at: float | None = None

    def connected(self) -> None:
        """Note that a stream opened. It counts as a success only once it has lasted longer than the budget.

        A stream without events may still live on its comments, and a server that accepts connections and closes them
        at once must not be retried forever.
        """
        self._connected_at = time.monotonic()

    def succeeded(self) -> None:
        """Restart the budget and the backoff."""
        self._last_success = time.monotonic()
        self._delay_s = _FIRST_DELAY_S

    def next_delay(self, error: BusyError | UnreachableError) -> float:
        """Return how many seconds to wait after `error`.

        Raises `error` when the budget does not allow the wait.
        """
        now = time.monotonic()
        if self._connected_at is not None and now - self._connected_at > self._retry_for_s:
            self.succeeded()
        self._connected_at = None
        delay = jittered(self._delay_s)
        self._delay_s = min(self._delay_s * 2, _MAX_DELAY_S)
        if isinstance(error, BusyError) and error.retry_after_s is not None:
            delay += error.retry_after_s
        if now + delay > self._last_success + self._retry_for_s:
            raise error
        return delay


class Deadline:
    """A point in time that is some seconds away."""

    def __init__(self, timeout_s: float) -> None:
        """Set the deadline `timeout_s` seconds from now."""
        self._at = time.monotonic() + timeout_s

    def remaining_s(self) -> float:
        """Return the seconds that are left; zero or negative once the deadline has passed."""
        return self._at - time.monotonic()


def poll_intervals() -> Iterator[float]:
    """Yield jittered seconds between two looks at a task, from 50 ms up to one second, without end."""
    interval = _FIRST_POLL_S
    while True:
        yield jittered(interval)
        interval = min(interval * 1.5, _MAX_POLL_S)


def jittered(delay_s: float) -> float:
    """Return 50 to 100 % of `delay_s`, so that clients of one server do not come back at the same instant."""
    return delay_s * random.uniform(0.5, 1.0)  # noqa: S311  not a secret
