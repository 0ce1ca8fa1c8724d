"""The interfaces inside memory: embedders and vector stores.

One test suite runs against every implementation.

Postgres is the source of truth for passages. A vector store contains only vectors, ids and filter fields, and can be
rebuilt from Postgres.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Shape (texts, dimension); each row has length 1, so that the dot product is the cosine."""


@dataclass(frozen=True, slots=True)
class Point:
    """One vector. Its id is derived from the passage, so writing it twice is harmless."""

    id: UUID
    vector: NDArray[np.float32]
    tenant: str
    collection: str
    document: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Near:
    """A point that a search found."""

    id: UUID
    score: float
    """Cosine, from -1 to 1."""


class Embedder(Protocol):
    """Converts texts into vectors."""

    @property
    def name(self) -> str:
        """Provider and model, for instance `minilm/all-MiniLM-L6-v2`: vectors of another name are not comparable."""

    @property
    def dimension(self) -> int:
        """Length of each vector."""

    @property
    def max_tokens(self) -> int:
        """Maximum tokens of a text. A longer text is truncated before it is embedded; passages are shorter."""

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Return the number of tokens of each text, without special tokens and without truncation."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row per text. Does not block the event loop.

        Raises StoreUnavailableError when a remote provider is unavailable, EmbeddingError when it rejects the texts.
        """

    async def close(self) -> None:
        """Close connections and stop threads."""


class VectorStore(Protocol):
    """Stores points. Every call names its tenant and sees only that tenant's points."""

    async def open(self, embedder: str, dimension: int) -> None:
        """Create or check the collection.

        Raises VectorStoreError if it belongs to another embedder or dimension.
        """

    async def put(self, points: Sequence[Point]) -> None:
        """Store points, replacing those with the same id. They can be found when this returns."""

    async def search(
        self,
        tenant: str,
        vector: NDArray[np.float32],
        limit: int,
        *,
        collection: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Sequence[Near]:
        """Return the points nearest to `vector`, best first, that match the filter."""

    async def delete(self, tenant: str, ids: Sequence[UUID]) -> None:
        """Delete points of this tenant; unknown ids are ignored."""

    async def delete_document(self, tenant: str, collection: str, document: str) -> None:
        """Delete every point of a document."""

    async def count(self, tenant: str) -> int:
        """Return the number of points of a tenant."""

    async def close(self) -> None:
        """Flush and close. Another process can open an embedded store afterwards."""
