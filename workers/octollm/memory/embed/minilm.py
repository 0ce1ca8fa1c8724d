"""all-MiniLM-L6-v2 from its own files, without PyTorch and without any network.

Its vectors have 384 dimensions; it knows English.

Owns the tokens, the batches and the one thread that computes. The encoder is `bert.py`.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError, safe_open
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer

from octollm.errors import EmbeddingError
from octollm.memory.embed.bert import Bert, Shape
from octollm.memory.embed.files import MODEL, PULL, problem
from octollm.memory.embed.unicode import NO_UNICODE
from octollm.memory.ports import Vectors

_LONGEST = 256  # with the two special tokens, as the model's own sentence_bert_config.json says
_BATCH = 1024  # tokens of one pass: enough for the matrix products, and a query waits no longer than for one
_DIMENSION = 384


class MiniLm:
    """An `Embedder`. One thread computes, so that a process takes no more than one core for it."""

    name = f"minilm/{MODEL}"
    dimension = _DIMENSION
    max_tokens = _LONGEST - 2

    def __init__(self, tokenizer: Tokenizer, bert: Bert) -> None:
        """Use `load`."""
        self._tokenizer = tokenizer
        self._bert = bert
        (self._first, self._last) = tokenizer.encode("").ids  # the special tokens around a text
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="minilm")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Blocks for some tenths of a second. Raises EmbeddingError where the files are not the model's."""
        wrong = problem(folder)
        if wrong is not None:
            raise EmbeddingError(f"the embedding model cannot be loaded: {wrong}; {PULL}")
        # Without a limit, matrix products take every core. This one stays for the whole process.
        threadpool_limits(1, user_api="blas")
        try:
            config = json.loads((folder / "config.json").read_bytes())
            shape = Shape(
                hidden=config["hidden_size"],
                inner=config["intermediate_size"],
                heads=config["num_attention_heads"],
                layers=config["num_hidden_layers"],
                epsilon=config["layer_norm_eps"],
            )
            with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
                bert = Bert(shape, tensors.get_tensor)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, SafetensorError) as error:
            raise EmbeddingError(f"the embedding model in {folder} cannot be read ({error}); {PULL}") from error
        # The file asks for 128 tokens, cut and filled up; `_ids` cuts, and nothing is filled.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, bert)

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text, special ones not counted, uncut."""
        return [len(self._encode(text)) for text in texts]

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Longer texts are cut at 256 tokens. Never raises StoreUnavailableError: nothing is remote."""
        loop = asyncio.get_running_loop()
        ids = await loop.run_in_executor(self._thread, self._ids, texts)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        # One batch at a time, so that a query that comes in the middle is next and need not wait for all.
        for batch in _batches([len(one) for one in ids]):
            vectors[batch] = await loop.run_in_executor(self._thread, self._bert.encode, [ids[at] for at in batch])
        return vectors

    async def close(self) -> None:
        """Waits for the batch that runs."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self._first, *self._encode(text)[: self.max_tokens], self._last] for text in texts]

    def _encode(self, text: str) -> list[int]:
        try:
            # One by one: the library's own batches take every core.
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise EmbeddingError(NO_UNICODE) from error


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of the texts, shortest first, at most `_BATCH` tokens together."""
    batch: list[int] = []
    tokens = 0
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and tokens + lengths[at] > _BATCH:
            yield batch
            batch, tokens = [], 0
        batch.append(at)
        tokens += lengths[at]
    if batch:
        yield batch
