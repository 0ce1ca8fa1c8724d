"""What a Qdrant server and Qdrant's local mode have in common: one client library speaks to both."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, models

from octollm.errors import VectorStoreError
from octollm.memory.ports import Near, Point
from octollm.memory.vectors.payload import (
    COLLECTION,
    DIMENSION,
    EMBEDDER,
    check_same,
    check_vectors,
    conditions,
    payload,
)

_BATCH = 256  # points in one request; with 1,536 dimensions about 8 MB of JSON, a server takes 32


class ClientStore(ABC):
    """A `VectorStore` on the client library."""

    def __init__(self, collection: str = COLLECTION) -> None:
        """Connects to nothing; `open` does."""
        self._collection = collection
        self._opened: AsyncQdrantClient | None = None
        self._dimension = 0

    @abstractmethod
    def _connect(self) -> AsyncQdrantClient:
        """A client."""

    @abstractmethod
    async def _prepare(self, client: AsyncQdrantClient) -> None:
        """After the collection is known to be there."""

    @abstractmethod
    def _errors(self) -> AbstractContextManager[None]:
        """Turns the library's errors into ours."""

    @property
    @abstractmethod
    def _place(self) -> str:
        """For people: where the vectors lie."""

    async def open(self, embedder: str, dimension: int) -> None:
        """Make or check the collection.

        Raises VectorStoreError where it holds vectors of another dimension or name.
        """
        if self._opened is not None:
            raise VectorStoreError("the vector store is open already")
        with self._errors():
            client = self._connect()
        try:
            with self._errors():
                await self._make(client, embedder, dimension)
                await self._check(client, embedder, dimension)
                await self._prepare(client)
        except BaseException:
            await client.close()
            raise
        self._opened, self._dimension = client, dimension

    async def put(self, points: Sequence[Point]) -> None:
        """Write points; ones with a known id are replaced. On return they can be found."""
        check_vectors([point.vector for point in points], self._dimension)
        for start in range(0, len(points), _BATCH):
            batch = [
                models.PointStruct(id=str(point.id), vector=point.vector.tolist(), payload=payload(point))
                for point in points[start : start + _BATCH]
            ]
            with self._errors():
                await self._client.upsert(self._collection, batch, wait=True)

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
        check_vectors([vector], self._dimension)
        if limit < 1:
            return []
        with self._errors():
            answer = await self._client.query_points(
                self._collection,
                query=vector.tolist(),
                limit=limit,
                query_filter=_filter(conditions(tenant, collection, attributes=attributes)),
                with_payload=False,
            )
        return [Near(UUID(str(point.id)), float(point.score)) for point in answer.points]

    async def delete(self, tenant: str, ids: Sequence[UUID]) -> None:
        """Remove points of this tenant; unknown ids are no error."""
        if ids:
            wanted = models.HasIdCondition(has_id=[str(one) for one in ids])
            await self._delete(_filter(conditions(tenant), wanted))

    async def delete_document(self, tenant: str, collection: str, document: str) -> None:
        """Remove every point of a document."""
        await self._delete(_filter(conditions(tenant, collection, document)))

    async def count(self, tenant: str) -> int:
        """Points of a tenant."""
        with self._errors():
            answer = await self._client.count(self._collection, count_filter=_filter(conditions(tenant)), exact=True)
        return answer.count

    async def close(self) -> None:
        """Let go."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.close()

    @property
    def _client(self) -> AsyncQdrantClient:
        if self._opened is None:
            raise VectorStoreError("the vector store is not open")
        return self._opened

    async def _delete(self, which: models.Filter) -> None:
        with self._errors():
            await self._client.delete(self._collection, models.FilterSelector(filter=which), wait=True)

    async def _make(self, client: AsyncQdrantClient, embedder: str, dimension: int) -> None:
        if await client.collection_exists(self._collection):
            return
        try:
            await client.create_collection(
                self._collection,
                vectors_config=models.VectorParams(size=dimension, distance=models.Distance.COSINE),
                # Every search names its tenant: one graph per tenant, none over all.
                hnsw_config=models.HnswConfigDiff(m=0, payload_m=16),
                metadata={EMBEDDER: embedder, DIMENSION: dimension},
            )
        except Exception:
            # Another process may have been faster.
            if not await client.collection_exists(self._collection):
                raise

    async def _check(self, client: AsyncQdrantClient, embedder: str, dimension: int) -> None:
        config = (await client.get_collection(self._collection)).config
        vectors = config.params.vectors
        size = vectors.size if isinstance(vectors, models.VectorParams) else "several kinds of"
        known = (config.metadata or {}).get(EMBEDDER, "an unknown embedder")
        check_same(self._place, (known, size), (embedder, dimension))


def _filter(pairs: Iterable[tuple[str, str]], *more: models.Condition) -> models.Filter:
    matches = [models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in pairs]
    return models.Filter(must=[*matches, *more])
