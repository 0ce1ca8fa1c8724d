"""An arm that does nothing, so that what is measured is everything around it."""

from typing import Any

from octollm.arms.base import ArmContext
from octollm.contracts import StepRequested


class Noop:
    """Gives its input back."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """The step's input as it came."""
        del ctx
        return step.input
