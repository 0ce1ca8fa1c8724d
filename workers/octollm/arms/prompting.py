"""How arms ask models: prompts from files, untrusted text as marked data, and a second chance for a wrong answer.

A prompt file is a stable prefix: it holds no clock and no id, so that the same question is the same bytes.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import orjson

from octollm.arms.base import ArmContext
from octollm.contracts import StepRequested
from octollm.errors import PermanentError
from octollm.ports import Question, Reply

MAX_REPAIRS = 2
"""How often a model is told that its answer, though of the right form, cannot be used."""


@dataclass(frozen=True, slots=True)
class Usable:
    """An answer that passed, and what all its tries used."""

    value: Any
    reply: Reply
    input_tokens: int
    output_tokens: int

    @property
    def told(self) -> dict[str, Any]:
        """What an output says of its origin."""
        tokens = {"input": self.input_tokens, "output": self.output_tokens}
        return {"mode": "model", "provider": self.reply.provider, "model": self.reply.model, "tokens": tokens}


async def ask(
    ctx: ArmContext,
    step: StepRequested,
    question: Question,
    faults: Callable[[Any], list[str]],
    what: str,
) -> Usable:
    """An answer in which `faults` finds nothing; `what` names it for people. Raises what the mind raises.

    Each try is a call of its own in the journal. Raises PermanentError `model_answer_unusable` after the last.
    """
    if ctx.mind is None:
        raise PermanentError("needs_model", f"{what} needs a model, and this worker was started without one")
    asked, used_in, used_out = question, 0, 0
    for call in range(1, MAX_REPAIRS + 2):
        reply = await ctx.mind.ask(step, asked)
        used_in, used_out = used_in + reply.input_tokens, used_out + reply.output_tokens
        wrong = faults(reply.value)
        if not wrong:
            return Usable(reply.value, reply, used_in, used_out)
        ctx.log.info("an answer cannot be used", purpose=question.purpose, call=call, faults=len(wrong))
        told = "\n".join(f"- {one}" for one in wrong)
        prompt = (
            f"{question.prompt}\n\nThis was answered before, and it cannot be used:\n"
            f"{as_data('earlier_answer', reply.value)}\nWhat is wrong with it:\n{told}\n\nAnswer again, in full."
        )
        asked = Question(question.purpose, question.system, prompt, question.schema, call + 1)
    message = f"{what}: the model gave no usable answer in {MAX_REPAIRS + 1} tries, last: {wrong[0]}"
    raise PermanentError("model_answer_unusable", message)


def as_data(name: str, value: Any) -> str:  # noqa: ANN401  any JSON value
    """Untrusted text between marks that it cannot contain, since they carry its own digest. Deterministic."""
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f'<data name="{name}" mark="{mark}">\n{text}\n</data mark="{mark}">'


@cache
def prompt(name: str) -> str:
    """A prompt file of `arms/prompts/`."""
    return (resources.files("octollm.arms") / "prompts" / f"{name}.md").read_text(encoding="utf-8").strip()


@cache
def described() -> Mapping[str, Any]:
    """What arms do and take, by name: `arms/prompts/arms.json`."""
    found: Mapping[str, Any] = orjson.loads((resources.files("octollm.arms") / "prompts" / "arms.json").read_bytes())
    return found
