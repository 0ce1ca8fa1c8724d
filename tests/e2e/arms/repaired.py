"""A judge that breaks on everything until somebody has repaired it: until the file named by REPAIRED is there."""

import os
from pathlib import Path
from typing import Any

from octollm.arms.base import ArmContext
from octollm.arms.judge import Judge
from octollm.contracts import StepRequested


class Repaired(Judge):
    """See the module."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        if not _repaired():
            raise ImportError("not repaired yet")
        return await super().handle(step, ctx)


def _repaired() -> bool:
    return Path(os.environ["REPAIRED"]).exists()
