"""An arm that counts what a text is made of."""

from typing import Any

from octollm.arms.base import ArmContext, closed, invalid
from octollm.contracts import StepRequested


class Tally:
    """Input `{"text": str}` gives `{"lines": int, "words": int, "longest": str}`."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """Raises PermanentError on any other input: trying again would not help."""
        closed(step.input, required={"text"}, optional=set())
        text = step.input["text"]
        if not isinstance(text, str):
            raise invalid("input.text must be text")
        words = text.split()
        ctx.log.info("tallied", words=len(words))
        return {"lines": len(text.splitlines()), "words": len(words), "longest": max(words, key=len, default="")}
