"""The process pool as one step uses it, and how often the step is tried on content that does not end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TypeVar

from octollm.errors import PermanentError
from octollm.isolation.pool import CallTimeoutError, ProcessEndedError, ProcessPool

_MARGIN_S = 0.5
"""How long before the step's own time limit a call is ended, so that the step fails with the call's cause."""
Result = TypeVar("Result")


@dataclass(slots=True)  # not frozen: that makes its creation, which every step pays for, seven times as long
class StepIsolation:
    """Implements `octollm.ports.Isolation` for one attempt at a step; make it when the attempt begins.

    The functions are pure, so content that does not end within the time limit, or ends its process, will do so again.
    The step is repeated once, because the machine may have been busy, and fails permanently the second time.
    """

    pool: ProcessPool
    tenant: str
    limit_s: float
    """Time limit of the attempt."""
    failures: int
    """Of the step so far."""
    began: float = field(default_factory=monotonic)

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        """See `Isolation.run`."""
        ends = self.began + self.limit_s - min(_MARGIN_S, self.limit_s / 10)
        try:
            return await self.pool.run(function, *args, tenant=self.tenant, limit_s=ends - monotonic())
        except CallTimeoutError as error:
            # Less than half: it waited for a process, or the step's limit was used up by something else.
            if self.failures and error.worked_s >= self.limit_s / 2:
                raise PermanentError(error.code, f"{error.message}; it was tried twice") from error
            raise
        except ProcessEndedError as error:
            if self.failures:
                raise PermanentError(error.code, f"{error.message}; it was tried twice") from error
            raise
