"""Prompts for models: prompt files, untrusted text marked as data, and repairs of answers that cannot be used.

A prompt file contains no time and no id, so that the same question is always the same bytes.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import orjson

from octollm.arms.base import ArmContext
from octollm.contracts import StepRequested
from octollm.errors import PermanentError
from octollm.ports import Question, Reply


@dataclass(frozen=True, slots=True)
class AcceptedAnswer:
    """An answer without faults, and the tokens of all calls that led to it."""

    value: Any
    reply: Reply
    input_tokens: int
    output_tokens: int

    @property
    def origin(self) -> dict[str, Any]:
        """The fields of a step's output that say which model made it."""
        tokens = {"input": self.input_tokens, "output": self.output_tokens}
        return {"mode": "model", "provider": self.reply.provider, "model": self.reply.model, "tokens": tokens}


async def ask_model(
    ctx: ArmContext,
    step: StepRequested,
    question: Question,
    find_faults: Callable[[Any], Awaitable[list[str]]],
    purpose: str,
) -> AcceptedAnswer:
    """Ask the model until its answer has no faults, with at most MAX_REPAIRS + 1 calls, those for the schema included.

    `find_faults`: returns a sentence for each fault of an answer, for the model to read; `purpose`: names the question
    in error messages. Each call has its own journal entry. Raises what `ModelClient.ask` raises, and PermanentError
    `model_answer_unusable` when the last answer still has faults.
    """
    if ctx.model is None:
        raise PermanentError("needs_model", f"{purpose} needs a model, and this worker has none")
    current, input_tokens, output_tokens = question, 0, 0
    left = question.repairs
    while True:
        reply = await ctx.model.ask(step, current)
        left -= reply.repairs
        input_tokens += reply.input_tokens
        output_tokens += reply.output_tokens
        faults = await find_faults(reply.value)
        if not faults:
            return AcceptedAnswer(reply.value, reply, input_tokens, output_tokens)
        ctx.log.info(
            "the model's answer cannot be used", purpose=question.purpose, call=current.call, faults=len(faults)
        )
        if left <= 0:
            break
        listed = "\n".join(f"- {one}" for one in faults)
        prompt = (
            f"{question.prompt}\n\nThis was answered before, and it cannot be used:\n"
            f"{as_data('earlier_answer', reply.value)}\nWhat is wrong with it:\n{listed}\n\nAnswer again, in full."
        )
        left -= 1
        current = replace(question, prompt=prompt, call=current.call + 1, repairs=left)
    message = f"{purpose}: the model gave no usable answer in {question.repairs + 1} calls; last fault: {faults[0]}"
    raise PermanentError("model_answer_unusable", message)


def as_data(name: str, value: Any) -> str:  # noqa: ANN401  any JSON value
    """Return untrusted text between marks that it cannot contain, because they include its hash.

    Deterministic.
    """
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f'<data name="{name}" mark="{mark}">\n{text}\n</data mark="{mark}">'


@cache
def prompt(name: str) -> str:
    """Return the text of `arms/prompts/<name>.md`."""
    return (resources.files("octollm.arms") / "prompts" / f"{name}.md").read_text(encoding="utf-8").strip()


@cache
def arm_descriptions() -> Mapping[str, Any]:
    """Return what each arm does and accepts, by its name: `arms/prompts/arms.json`."""
    found: Mapping[str, Any] = orjson.loads((resources.files("octollm.arms") / "prompts" / "arms.json").read_bytes())
    return found
