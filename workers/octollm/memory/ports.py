"""The two interfaces inside memory: what embeds texts, and what keeps vectors. One suite judges all makings of each.

Postgres is the truth about passages; a vector store holds only vectors, ids and what a search filters by, and can be
built again from Postgres.
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
    """One vector. Its id is derived from what it describes, so that writing twice changes nothing."""

    id: UUID
    vector: NDArray[np.float32]
    tenant: str
    collection: str
    document: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Near:
    """A point near to a query."""

    id: UUID
    score: float
    """Cosine, from -1 to 1."""


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def name(self) -> str:
        """Provider and model, for instance `minilm/all-MiniLM-L6-v2`: vectors of another name are not comparable."""

    @property
    def dimension(self) -> int:
        """Of each vector."""

    @property
    def longest_tokens(self) -> int:
        """Tokens beyond which a text is cut before it is embedded; chunks stay below."""

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text, special ones not counted, uncut."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Off the event loop. Raises StoreUnavailableError where a remote provider is away, EmbeddingError where it
        refuses.
        """

    async def close(self) -> None:
        """Let go of connections and threads."""


class VectorStore(Protocol):
    """Keeps points. Every read names its tenant; no call can see another's."""

    async def open(self, embedder: str, dimension: int) -> None:
        """Make or check the collection. Raises VectorStoreError where it holds vectors of another dimension or name."""

    async def put(self, points: Sequence[Point]) -> None:
        """Write points; ones with a known id are replaced. On return they can be found."""

    async def search(
        self,
        tenant: str,
        vector: NDArray[np.float32],
        limit: int,
        *,
        collection: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Sequence[Near]:
        """The nearest points, best first."""

    async def delete(self, tenant: str, ids: Sequence[UUID]) -> None:
        """Remove points of this tenant; unknown ids are no error."""

    async def delete_document(self, tenant: str, collection: str, document: str) -> None:
        """Remove every point of a document."""

    async def count(self, tenant: str) -> int:
        """Points of a tenant."""

    async def close(self) -> None:
        """Flush and let go; an embedded store may be opened by another process afterwards."""
