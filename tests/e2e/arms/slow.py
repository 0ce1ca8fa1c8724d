"""An arm that notes when it begins and waits until a file allows it to end: for killing workers at a known moment."""

import asyncio
import os
from pathlib import Path
from typing import Any

from octollm.arms.base import ArmContext
from octollm.contracts import StepRequested


class Slow:
    """Input: {"folder": where `begun` is written and `go` is waited for}."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """The process that did it."""
        del ctx
        folder = Path(step.input["folder"])
        with (folder / "begun").open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not (folder / "go").exists():
            await asyncio.sleep(0.02)
        return {"pid": os.getpid()}
