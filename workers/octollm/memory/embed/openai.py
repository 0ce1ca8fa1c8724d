"""Embeddings of any server that speaks OpenAI's embeddings API.

Owns the batches and the translation of errors. The SDK's own retries are off: whether to repeat after a
StoreUnavailableError is the caller's matter.
"""

import math
import os
from collections.abc import Iterator, Sequence

import numpy as np
import openai
from pydantic import BaseModel, ValidationError

from octollm.errors import EmbeddingError, StoreUnavailableError
from octollm.memory.embed.unicode import NO_UNICODE
from octollm.memory.ports import Vectors

_TIMEOUT_S = 60.0
_TEXTS = 128  # in one request
_TOKENS = 100_000  # in one request, estimated; OpenAI takes three times as many
_NO_KEY = "none"  # for servers that ask for no key; the SDK insists on one


class _Embedding(BaseModel):
    index: int
    embedding: list[float]


class _Answer(BaseModel):
    data: list[_Embedding]


class OpenAiEmbedder:
    """An `Embedder` that asks a server, such as OpenAI, vLLM, Ollama or LocalAI; `close` it at the end.

    A server that cannot shorten its vectors to `dimension` is asked for its own length, which must then be the same.
    """

    max_tokens = 512
    """What the smaller of the common models take; the API does not say."""

    def __init__(self, model: str, dimension: int, url: str = "") -> None:
        """`model`: as the server names it. `dimension`: length of the vectors, which the server is asked for.

        `url`: base URL with its version, such as `http://host/v1`; empty: OPENAI_BASE_URL, or OpenAI itself. The key is
        read from OPENAI_API_KEY. Raises EmbeddingError without a model, or without both key and URL. Connects to
        nothing.
        """
        if not model:
            raise EmbeddingError(
                "embedding.model is empty; set it to the server's embedding model (OCTOLLM_EMBEDDING_MODEL)"
            )
        base = url or os.environ.get("OPENAI_BASE_URL", "")
        key = os.environ.get("OPENAI_API_KEY", "")
        if not key and not base:
            raise EmbeddingError("OpenAI needs a key: set OPENAI_API_KEY, or embedding.url to a server that needs none")
        self.name = f"openai/{model}"
        self.dimension = dimension
        self._model = model
        self._shortens = True  # until the server refuses a requested dimension
        self._client = openai.AsyncOpenAI(
            api_key=key or _NO_KEY, base_url=base or None, max_retries=0, timeout=_TIMEOUT_S
        )

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Return an estimate for each text, in order: a token for every three bytes.

        It is rather too high. The API has no way to ask.
        """
        return [math.ceil(len(text.encode(errors="replace")) / 3) for text in texts]

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row for each text, in order, of length 1: float32, shape (texts, dimension).

        Sends requests of up to 128 texts, one after the other, each limited to 60 s. Raises StoreUnavailableError where
        the server is down, slow or overloaded, EmbeddingError where it refuses or answers something else.
        """
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for part in _batches(self.count_tokens(texts)):
            vectors[part] = self._checked(await self._ask(texts[part]))
        return vectors

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(self, texts: Sequence[str]) -> list[list[float]]:
        # An empty text is refused by OpenAI, a blank one is not.
        asked = [text or " " for text in texts]
        try:
            answer = await self._client.embeddings.with_raw_response.create(
                model=self._model,
                input=asked,
                encoding_format="float",
                dimensions=self.dimension if self._shortens else openai.omit,
            )
        except openai.BadRequestError as error:
            if self._shortens and "dimension" in error.message.lower():
                self._shortens = False
                return await self._ask(texts)
            raise EmbeddingError(f"the embedding server refused the texts: {_reason(error)}") from error
        except openai.OpenAIError as error:
            raise _translated(error) from error
        except UnicodeEncodeError as error:
            raise EmbeddingError(NO_UNICODE) from error
        try:
            # The SDK does not check what comes; what is no embedding would only fail later and elsewhere.
            data = _Answer.model_validate_json(answer.http_response.content).data
        except ValidationError as error:
            raise EmbeddingError("the embedding server answered something that is no list of embeddings") from error
        by_place = {item.index: item.embedding for item in data}
        if sorted(by_place) != list(range(len(texts))):
            raise EmbeddingError(f"the embedding server answered {len(data)} vectors for {len(texts)} texts")
        return [by_place[at] for at in range(len(texts))]

    def _checked(self, rows: list[list[float]]) -> Vectors:
        """All of the right dimension, with length 1."""
        for row in rows:
            if len(row) != self.dimension:
                raise EmbeddingError(
                    f"the model {self._model} makes vectors of {len(row)} dimensions, not {self.dimension}; "
                    f"set embedding.dimension to {len(row)}"
                )
        vectors = np.asarray(rows, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise EmbeddingError("the embedding server answered a vector without direction")
        vectors /= lengths
        return vectors


def _translated(error: openai.OpenAIError) -> StoreUnavailableError | EmbeddingError:
    """Waiting helps, or it does not."""
    if isinstance(error, openai.APITimeoutError):
        return StoreUnavailableError(f"the embedding server did not answer within {_TIMEOUT_S:.0f} s")
    if isinstance(error, openai.APIConnectionError):
        return StoreUnavailableError("the embedding server cannot be reached; check embedding.url")
    if isinstance(error, openai.APIStatusError):
        return _refusal(error)
    return EmbeddingError(f"the embedding server cannot be asked: {type(error).__name__}")


def _refusal(error: openai.APIStatusError) -> StoreUnavailableError | EmbeddingError:
    status = error.status_code
    if error.code == "insufficient_quota":
        return EmbeddingError("the account at the embedding server has no money left")
    if status in {408, 409, 429} or status >= 500:
        return StoreUnavailableError(f"the embedding server answers {status} for now")
    if status in {401, 403}:
        return EmbeddingError(f"the embedding server refuses the key ({status}); check OPENAI_API_KEY")
    if status == 404:
        return EmbeddingError("the embedding server knows no such path or model (404); check embedding.url and model")
    return EmbeddingError(f"the embedding server answered {status}: {_reason(error)}")


def _reason(error: openai.APIStatusError) -> str:
    """The server's own words, short: it may quote the texts."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return str(said or error.status_code)[:200]


def _batches(tokens: Sequence[int]) -> Iterator[slice]:
    start, total = 0, 0
    for at, count in enumerate(tokens):
        if at > start and (at - start == _TEXTS or total + count > _TOKENS):
            yield slice(start, at)
            start, total = at, 0
        total += count
    if start < len(tokens):
        yield slice(start, len(tokens))
