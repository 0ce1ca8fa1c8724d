"""Embeddings by the optional package fastembed, with a model that the user brought.

Downloads nothing.
"""

import asyncio
import importlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from octollm.errors import EmbeddingError
from octollm.memory.ports import Vectors

_BATCH = 16  # texts, for one turn of the thread


class FastEmbedder:
    """An `Embedder`. One thread computes."""

    max_tokens = 254
    """The package does not tell what its model takes; none takes less than 256 with the two special tokens."""

    def __init__(self, model: str, dimension: int, folder: str = "") -> None:
        """`folder`: the package's cache with the model's files; empty: the package's own default.

        Blocks while the model loads. Raises EmbeddingError that says what is missing.
        """
        if not model:
            raise EmbeddingError("embedding.model is empty; set it to a model of fastembed (OCTOLLM_EMBEDDING_MODEL)")
        self._model = _load(model, folder)
        self.name = f"fastembed/{model}"
        self.dimension = dimension
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fastembed")

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """By the model's own tokenizer, which cuts at the model's limit."""
        return [int(self._model.token_count([text])) for text in texts]

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Raises EmbeddingError where the model makes vectors of another dimension."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        loop = asyncio.get_running_loop()
        for start in range(0, len(texts), _BATCH):
            part = slice(start, start + _BATCH)
            vectors[part] = await loop.run_in_executor(self._thread, self._embed, list(texts[part]))
        return vectors

    async def close(self) -> None:
        """Waits for the batch that runs."""
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _embed(self, texts: list[str]) -> Vectors:
        made: Iterable[Any] = self._model.embed(texts)
        rows = np.asarray(list(made), dtype=np.float32)
        if rows.shape != (len(texts), self.dimension):
            raise EmbeddingError(
                f"the model makes vectors of {rows.shape[-1]} dimensions, not {self.dimension}; "
                f"set embedding.dimension to {rows.shape[-1]}"
            )
        vectors: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors


def _load(model: str, folder: str) -> Any:  # noqa: ANN401  of a package that need not be there
    try:
        make: Callable[..., Any] = importlib.import_module("fastembed").TextEmbedding
    except ImportError as error:
        raise EmbeddingError(
            "embedding.provider is fastembed, but that package is not installed; install octollm[fastembed]"
        ) from error
    try:
        # Without local_files_only it would wait for the network, for minutes where there is none.
        return make(model_name=model, cache_dir=folder or None, threads=1, local_files_only=True)
    except Exception as error:
        raise EmbeddingError(
            f"fastembed cannot load the model {model} ({type(error).__name__}); put its files into the folder that "
            "embedding.path names (fastembed's own cache_dir), or choose another embedding.model"
        ) from error
