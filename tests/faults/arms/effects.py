"""Arms whose every call leaves a line in a log that the system cannot touch.

`Effect` can die at a named moment. Input: {"n": number, "of"?: marks, "do"?: {"sleep_ms"?: ms, "crash"?: "before" |
"after" | "always", "token"?: file, "raise"?: text, "ask"?: true}}. With `raise` it breaks as an arm does on odd data;
with `ask` it asks the model for the number first. A crash with a token happens once: the process that removes the file
dies. Output: {"value": n + 1, "mark": text}; no two calls give the same mark, and `of` names the marks of what the step
was made from. A call that is stopped leaves a second line, with `stopped`.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import time
from typing import Any

from octollm.arms.base import ArmContext
from octollm.arms.judge import Judge
from octollm.contracts import StepRequested
from octollm.ports import Question

_ENDS = os.open(f"{os.environ['FAULTS_EFFECTS']}.ends", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
"""When each call of `Effect` ended, also where it was stopped, by its mark."""
_LOG = os.open(os.environ["FAULTS_EFFECTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


class Effect:
    """Arm `effect`."""

    uses_model = "OPENAI_BASE_URL" in os.environ

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """One more than was given."""
        do = step.input.get("do") or {}
        if do.get("crash") == "before":
            _die_once(do)
        if do.get("ask"):
            # Before the line: a step whose paid answer cannot be stored yet is called again in the same delivery.
            assert ctx.model is not None
            await ctx.model.ask(step, Question("count", "", str(step.input["n"])))
        mark = secrets.token_hex(8)
        _write(step, ctx, n=step.input["n"], of=step.input.get("of", []), mark=mark)
        if do.get("crash") == "always":
            os.kill(os.getpid(), signal.SIGKILL)
        if "raise" in do:
            raise ValueError(do["raise"])
        try:
            await asyncio.sleep(do.get("sleep_ms", 0) / 1000)
        except asyncio.CancelledError:
            _write(step, ctx, n=step.input["n"], stopped=True)
            raise
        finally:
            os.write(_ENDS, json.dumps({"at": time.monotonic(), "mark": mark}).encode() + b"\n")
        if do.get("crash") == "after":
            _die_once(do)
        return {"value": step.input["n"] + 1, "mark": mark}


class WatchedJudge(Judge):
    """Arm `judge`, whose calls leave a line, too."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """As the judge itself does it."""
        _write(step, ctx)
        return await super().handle(step, ctx)


def _write(step: StepRequested, ctx: ArmContext, **more: Any) -> None:
    line = {
        "at": time.monotonic(),
        "task": step.task,
        "run": step.run,
        "step": step.step,
        "round": step.round,
        "attempt": step.attempt,
        "tenant": step.tenant,
        "worker": ctx.worker,
        **more,
    }
    os.write(_LOG, json.dumps(line).encode() + b"\n")


def _die_once(do: dict[str, Any]) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(do["token"])  # noqa: PTH108  one call that only one process can win
        os.kill(os.getpid(), signal.SIGKILL)
