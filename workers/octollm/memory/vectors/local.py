"""Vectors in Qdrant's own local mode.

It is written in Python, exact, and meant for a few thousand points and for tests.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from qdrant_client import AsyncQdrantClient

from octollm.errors import VectorStoreError
from octollm.memory.vectors.client import ClientStore
from octollm.memory.vectors.lock import lock


class LocalStore(ClientStore):
    """A `VectorStore`. Computes on the event loop, so a large one stalls its process."""

    def __init__(self, folder: Path | None = None) -> None:
        """None: in memory only."""
        super().__init__()
        self._folder = folder
        self._lock: IO[bytes] | None = None

    async def open(self, embedder: str, dimension: int) -> None:
        """Open the folder, or create it.

        Raises VectorStoreError where another has the folder or it holds vectors of another dimension or name.
        """
        # The library has a lock too, but leaves its file open where another holds it.
        held = lock(self._folder) if self._folder else None
        try:
            await super().open(embedder, dimension)
        except BaseException:
            if held is not None:
                held.close()
            raise
        self._lock = held

    async def close(self) -> None:
        """Let go; another process may open the folder afterwards."""
        await super().close()
        held, self._lock = self._lock, None
        if held is not None:
            held.close()

    @property
    def _place(self) -> str:
        return f"the vector store in {self._folder}" if self._folder else "the vector store in memory"

    def _connect(self) -> AsyncQdrantClient:
        if self._folder is None:
            return AsyncQdrantClient(location=":memory:")
        return AsyncQdrantClient(path=str(self._folder))

    async def _prepare(self, client: AsyncQdrantClient) -> None:
        """It has no indexes."""

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError, KeyError, sqlite3.Error) as error:
            raise VectorStoreError(f"{self._place} cannot be used: {error}") from error
