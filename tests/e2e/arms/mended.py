"""A judge that breaks on everything until somebody has mended it: until the file named by MENDED is there."""

import os
from pathlib import Path
from typing import Any

from octollm.arms.base import ArmContext
from octollm.arms.judge import Judge
from octollm.contracts import StepRequested


class Mended(Judge):
    """See the module."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        if not _mended():
            raise KeyError("not mended yet")
        return await super().handle(step, ctx)


def _mended() -> bool:
    return Path(os.environ["MENDED"]).exists()
