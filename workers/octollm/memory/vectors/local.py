"""Vectors in Qdrant's own local mode: written in Python, exact, meant for a few thousand points and for tests."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qdrant_client import AsyncQdrantClient

from octollm.errors import VectorStoreError
from octollm.memory.vectors.client import ClientStore
from octollm.memory.vectors.payload import one_owner


class LocalStore(ClientStore):
    """A `VectorStore`. Computes on the event loop, so a large one stalls its process."""

    def __init__(self, folder: Path | None = None) -> None:
        """None: in memory only."""
        super().__init__()
        self._folder = folder

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
        except RuntimeError as error:
            raise VectorStoreError(one_owner(str(self._folder))) from error
        except (OSError, ValueError, sqlite3.Error) as error:
            raise VectorStoreError(f"{self._place} cannot be used: {error}") from error
