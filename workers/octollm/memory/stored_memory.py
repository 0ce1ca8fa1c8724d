"""Memory as the arms know it: search by meaning and by words, one order of both; ingest, read, forget."""

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
from octollm.memory.rank_fusion import Fused, fuse
from octollm.ports import Document, Hits, Ingested, Passage, SearchMode

_SQL = queries("octollm.memory", "search")
_LONGEST_QUERY = 2000
_FEWEST = 50
_TIMES = 4
"""Each leg looks further than what is wanted: what both find may stand low in each."""


class StoredMemory:
    """`octollm.ports.Recall` on Postgres, with vectors where there are an embedder and a store."""

    def __init__(self, pool: Pool, dense: Dense | None, lack: str | None = None) -> None:
        """`dense` has its store open; without it searches are by words only, and `lack` says why."""
        self._pool = pool
        self._dense = dense
        self._lack = lack or "search is by words only: there are no vectors here"
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
        """The best passages of this tenant, by the first 2,000 characters of the query.

        Raises StoreUnavailableError while a store is away.
        """
        query = query[:_LONGEST_QUERY]
        where = keyword.Where(tenant, collection, attributes)
        used: SearchMode = mode if self._dense is not None else "keyword"
        deep = max(_FEWEST, _TIMES * limit)
        legs: dict[str, Sequence[UUID]]
        if used == "keyword":
            legs = {"keyword": await self._by_words(where, query, deep)}
        elif used == "dense":
            legs = {"dense": await self._by_meaning(where, query, deep)}
        else:
            dense, words = await asyncio.gather(
                self._by_meaning(where, query, deep), self._by_words(where, query, deep)
            )
            legs = {"dense": dense, "keyword": words}
        passages = await self._passages(tenant, fuse(legs), limit)
        return Hits(passages, used, self._lack if used != mode else None)

    async def ingest(self, tenant: str, documents: Sequence[Document]) -> Sequence[Ingested]:
        """One after the other, each all or nothing; an unchanged one costs nothing."""
        return [await self.documents.ingest(tenant, document) for document in documents]

    async def read(self, tenant: str, collection: str, document: str, start: int, end: int) -> str | None:
        """The stored text between two offsets; None where there is no such document."""
        async with transaction(self._pool) as connection:
            text = await connection.fetchval(_SQL["read"], tenant, collection, document, start, max(start, end))
        return None if text is None else str(text)

    async def forget(self, tenant: str, collection: str, document: str) -> bool:
        """Remove a document, its passages and its vectors; whether it was there."""
        return await self.documents.forget(tenant, collection, document)

    async def _by_words(self, where: keyword.Where, query: str, limit: int) -> list[UUID]:
        async with transaction(self._pool) as connection:
            return await keyword.find(connection, self._frequencies, where, query, limit)

    async def _by_meaning(self, where: keyword.Where, query: str, limit: int) -> list[UUID]:
        if self._dense is None:
            return []
        return await self._dense.near(where.tenant, query, limit, where.collection, where.attributes)

    async def _passages(self, tenant: str, fused: Sequence[Fused[UUID]], limit: int) -> list[Passage]:
        """The first that are still there: a vector may outlive its passage for a moment."""
        found: list[Passage] = []
        async with transaction(self._pool) as connection:
            for begin in range(0, len(fused), limit):
                some = fused[begin : begin + limit]
                rows = await connection.fetch(_SQL["passages"], tenant, [one.key for one in some])
                there = {row["id"]: _passage(row) for row in rows}
                found += [replace(there[one.key], score=one.score, ranks=one.ranks) for one in some if one.key in there]
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
