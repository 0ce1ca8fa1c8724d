"""The memory store that arms use: vector and keyword search with rank fusion; ingest, read and delete."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import asyncpg

from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.memory import keyword
from octollm.memory.dense import Dense
from octollm.memory.documents import Documents
from octollm.memory.frequencies import Frequencies
from octollm.memory.rank_fusion import Ranked, merge_ranks
from octollm.ports import Document, Hits, Ingested, Passage, SearchMode

_SQL = queries("octollm.memory", "search")
_MAX_QUERY = 2000
_MIN_DEPTH = 50
_DEPTH_FACTOR = 4
"""Each search returns more than the limit, since a passage that both find may be low in each ranking."""


class StoredMemory:
    """`octollm.ports.MemoryStore` on Postgres, with vector search if there is an embedder and a vector store."""

    def __init__(self, pool: Pool, dense: Dense | None, no_vectors_reason: str | None = None) -> None:
        """`dense`: with its vector store open; None: keyword search only, and `no_vectors_reason` says why."""
        self._pool = pool
        self._dense = dense
        self._no_vectors_reason = no_vectors_reason or "keyword search only: this process has no vector store"
        self._frequencies = Frequencies()
        self.documents = Documents(pool, dense)

    async def search(
        self,
        tenant: str,
        query: str,
        *,
        limit: int = 10,
        mode: SearchMode = "hybrid",
        collection: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Hits:
        """Return the best passages for the first 2,000 characters of `query`. See `MemoryStore.search`."""
        query = query[:_MAX_QUERY]
        where = keyword.Where(tenant, collection, attributes)
        used: SearchMode = mode if self._dense is not None else "keyword"
        depth = max(_MIN_DEPTH, _DEPTH_FACTOR * limit)
        rankings: dict[str, Sequence[UUID]]
        if used == "keyword":
            rankings = {"keyword": await self._keyword_search(where, query, depth)}
        elif used == "dense":
            rankings = {"dense": await self._vector_search(where, query, depth)}
        else:
            dense, words = await asyncio.gather(
                self._vector_search(where, query, depth), self._keyword_search(where, query, depth)
            )
            rankings = {"dense": dense, "keyword": words}
        passages = await self._passages(tenant, merge_ranks(rankings), limit)
        return Hits(passages, used, self._no_vectors_reason if used != mode else None)

    async def ingest(self, tenant: str, documents: Sequence[Document]) -> Sequence[Ingested]:
        """Ingest documents one by one. See `MemoryStore.ingest`."""
        return [await self.documents.ingest(tenant, document) for document in documents]

    async def read(self, tenant: str, collection: str, document: str, start: int, end: int) -> str | None:
        """Return a part of a document's text. See `MemoryStore.read`."""
        async with transaction(self._pool) as connection:
            text = await connection.fetchval(_SQL["read"], tenant, collection, document, start, max(start, end))
        return None if text is None else str(text)

    async def delete(self, tenant: str, collection: str, document: str) -> bool:
        """Delete a document and return whether it existed. See `MemoryStore.delete`."""
        return await self.documents.delete(tenant, collection, document)

    async def _keyword_search(self, where: keyword.Where, query: str, limit: int) -> list[UUID]:
        async with transaction(self._pool) as connection:
            return await keyword.find(connection, self._frequencies, where, query, limit)

    async def _vector_search(self, where: keyword.Where, query: str, limit: int) -> list[UUID]:
        if self._dense is None:
            return []
        return await self._dense.near(where.tenant, query, limit, where.collection, where.attributes)

    async def _passages(self, tenant: str, ranked: Sequence[Ranked[UUID]], limit: int) -> list[Passage]:
        """Load the first `limit` passages. Vectors of passages deleted just now are skipped."""
        found: list[Passage] = []
        async with transaction(self._pool) as connection:
            for begin in range(0, len(ranked), limit):
                batch = ranked[begin : begin + limit]
                rows = await connection.fetch(_SQL["passages"], tenant, [one.key for one in batch])
                stored = {row["id"]: _passage(row) for row in rows}
                found += [
                    replace(stored[one.key], score=one.score, ranks=one.ranks) for one in batch if one.key in stored
                ]
                if len(found) >= limit:
                    break
        return found[:limit]


def _passage(row: asyncpg.Record) -> Passage:
    return Passage(
        collection=row["collection"],
        document=row["name"],
        start=row["start_at"],
        end=row["end_at"],
        first_line=row["first_line"],
        last_line=row["last_line"],
        text=row["text"],
        heading=row["heading"],
        attributes=row["attributes"],
    )
