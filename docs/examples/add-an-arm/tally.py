"""An arm that counts the lines and words of a text."""

from typing import Any

from octollm.arms.base import ArmContext, invalid, require_fields
from octollm.contracts import StepRequested


class Tally:
    """Turns `{"text": str}` into `{"lines": int, "words": int, "longest": str}`."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """Return the counts of the text.

        Raises PermanentError for any other input, because a retry could not succeed.
        """
        require_fields(step.input, required={"text"}, optional=set())
        text = step.input["text"]
        if not isinstance(text, str):
            raise invalid("input.text must be text")
        words = text.split()
        ctx.log.info("tallied", words=len(words))
        return {"lines": len(text.splitlines()), "words": len(words), "longest": max(words, key=len, default="")}
