"""An embedder and a vector store that are real but small, for tests that are not about either."""

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from octollm.errors import StoreUnavailableError, VectorStoreError
from octollm.memory.ports import Near, Point, Vectors
from octollm.text.words import terms

_WORD = re.compile(r"\w+|[^\w\s]")


class HashingEmbedder:
    """Bags of words, hashed into 384 dimensions: texts with the same words are near."""

    def __init__(self, name: str = "hashing/384", max_tokens: int = 128) -> None:
        self.name = name
        self.dimension = 384
        self.max_tokens = max_tokens
        self.embedded: list[str] = []

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        return [len(_WORD.findall(text)) for text in texts]

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += texts
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for term in terms(text):
                vector[zlib.crc32(term.encode()) % self.dimension] += 1
            vector[0] += 1e-3  # no text is a vector of length 0
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    async def close(self) -> None:
        pass


class ListStore:
    """Every point in a dict. `away` makes it refuse as a server that is gone would."""

    def __init__(self) -> None:
        self.points: dict[UUID, Point] = {}
        self.away = False
        self._opened: tuple[str, int] | None = None

    async def open(self, embedder: str, dimension: int) -> None:
        if self._opened not in {None, (embedder, dimension)}:
            raise VectorStoreError("it holds vectors of another model")
        self._opened = (embedder, dimension)

    def _ready(self) -> None:
        if self.away:
            raise StoreUnavailableError("the vector store: away")

    async def put(self, points: Sequence[Point]) -> None:
        self._ready()
        self.points |= {point.id: point for point in points}

    async def search(
        self,
        tenant: str,
        vector: NDArray[np.float32],
        limit: int,
        *,
        collection: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Sequence[Near]:
        self._ready()
        wanted = dict(attributes or {})
        found = [
            Near(point.id, float(point.vector @ vector))
            for point in self.points.values()
            if point.tenant == tenant
            and collection in {None, point.collection}
            and wanted.items() <= dict(point.attributes).items()
        ]
        return sorted(found, key=lambda near: -near.score)[:limit]

    async def delete(self, tenant: str, ids: Sequence[UUID]) -> None:
        self._ready()
        for id_ in ids:
            if id_ in self.points and self.points[id_].tenant == tenant:
                del self.points[id_]

    async def delete_document(self, tenant: str, collection: str, document: str) -> None:
        self._ready()
        place = (tenant, collection, document)
        await self.delete(tenant, [p.id for p in self.points.values() if (p.tenant, p.collection, p.document) == place])

    async def count(self, tenant: str) -> int:
        return sum(point.tenant == tenant for point in self.points.values())

    async def close(self) -> None:
        pass


def of(store: ListStore, **wanted: Any) -> list[Point]:
    """The points with these fields."""
    return [p for p in store.points.values() if all(getattr(p, name) == value for name, value in wanted.items())]
