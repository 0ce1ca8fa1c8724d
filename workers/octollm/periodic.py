"""Jobs that run again and again for as long as a process runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from octollm.errors import StoreUnavailableError

_log = structlog.get_logger(__name__)


class PeriodicJob(NamedTuple):
    """What is done, and how often."""

    name: str
    """In logs and in the supervisor's reports."""
    interval_s: float
    run: Callable[[], Awaitable[object]]


async def run_periodically(job: PeriodicJob) -> None:
    """Run a job forever. What it raises is logged and does not end the loop."""
    while True:
        # Jitter: several processes run the same jobs and should not do so at the same moment.
        await asyncio.sleep(job.interval_s * random.uniform(0.5, 1.0))  # noqa: S311
        try:
            await job.run()
        except StoreUnavailableError as error:
            _log.warning("a periodic job was skipped", job=job.name, error=error.message)
        except Exception:  # noqa: BLE001  the next run must come, whatever this one met
            _log.exception("a periodic job failed; it runs again", job=job.name)
