"""Jobs that run again and again for as long as a process runs."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NamedTuple

import structlog

from octollm.errors import StoreUnavailableError

_log = structlog.get_logger(__name__)


class Alarm:
    """Runs a job before its interval has passed.

    It runs at the earliest of the times that were set since its last run.
    """

    def __init__(self) -> None:
        self._at = float("inf")
        """On the monotonic clock."""
        self._earlier = asyncio.Event()

    def set_in(self, seconds: float) -> None:
        """Run the job in this many seconds at the latest."""
        at = monotonic() + seconds
        if at < self._at:
            self._at = at
            self._earlier.set()

    async def wait(self, longest_s: float) -> None:
        """Wait for the alarm, or for `longest_s` seconds. Afterwards no alarm is set."""
        until = monotonic() + longest_s
        while (left_s := min(until, self._at) - monotonic()) > 0:
            self._earlier.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._earlier.wait(), left_s)
        self._at = float("inf")


class PeriodicJob(NamedTuple):
    """What is done, and how often."""

    name: str
    """In logs and in the supervisor's reports."""
    interval_s: float
    run: Callable[[], Awaitable[object]]
    alarm: Alarm | None = None
    """Makes a run come earlier; None: nothing does."""


async def run_periodically(job: PeriodicJob) -> None:
    """Run a job forever. What it raises is logged and does not end the loop."""
    alarm = job.alarm or Alarm()
    while True:
        # Jitter: several processes run the same jobs and should not do so at the same moment.
        await alarm.wait(job.interval_s * random.uniform(0.5, 1.0))  # noqa: S311
        try:
            await job.run()
        except StoreUnavailableError as error:
            _log.warning("a periodic job was skipped", job=job.name, error=error.message)
        except Exception:  # noqa: BLE001  the next run must come, whatever this one met
            _log.exception("a periodic job failed; it runs again", job=job.name)
