"""An arm that says when its handler began, so that the way of a message can be timed."""

import time
from typing import Any

from octollm.arms.base import ArmContext
from octollm.contracts import StepRequested


class Clock:
    """Takes part in `bench/latency.py`."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """`at`: now, and `sent` as it came, both in nanoseconds since 1970."""
        del ctx
        return {"at": time.time_ns(), "sent": step.input["sent"]}
