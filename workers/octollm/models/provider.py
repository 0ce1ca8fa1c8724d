"""What a provider of models is: one call to a model, streamed, and nothing around it.

A provider keeps nothing, repeats nothing that was begun, and knows neither steps nor journal.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson

Stop = Literal["end", "max_tokens", "refusal", "context", "other"]
"""Why a model stopped: it was done; at the limit of its output; it declined; its context was full; anything else."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier answer to the same question, and what was wrong with it."""

    answer: str
    complaint: str


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked."""

    system: str
    prompt: str
    schema: Mapping[str, Any] | None
    """JSON Schema the answer must keep; None: free text."""
    turns: tuple[Turn, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the question without the model, so that an answer is found after a change of models."""
        turns = [[turn.answer, turn.complaint] for turn in self.turns]
        asked = [self.system, self.prompt, self.schema, turns]
        return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Tokens:
    """What was used. The four add up: no token is counted twice, however the provider counts."""

    input: int
    """Neither read from a cache nor written to one."""
    output: int
    cache_read: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered."""

    text: str
    stop: Stop
    model: str
    """The name the provider gives, which may be more exact than the one asked for."""
    tokens: Tokens | None
    """None: the server does not say."""


class Provider(Protocol):
    """A model at a server."""

    @property
    def name(self) -> str:
        """`anthropic`, `openai`, or `compatible` for a server that speaks OpenAI's protocol."""

    @property
    def model(self) -> str:
        """The model that is asked for."""

    async def answer(self, request: Request) -> Answer:
        """One answer. A cancelled call closes its connection at once.

        Raises TransientError (with the time to wait, where the server gives one), NeedsPersonError (key, credit, model)
        or PermanentError; their messages hold neither the key nor what was asked.
        """

    async def close(self) -> None:
        """Close the connections."""


def plain(text: str) -> str:
    """Text that every store takes: no NUL, no half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
