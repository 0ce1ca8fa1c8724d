"""Takes documents in and lets them go. Postgres has the truth, vectors follow it; a crash in between is mended.

A document is `pending` from the commit of its passages until its vectors are stored, `deleting` from the loss of its
passages until its vectors are gone. Whoever meets such a state finishes it: the retry, or `mend`.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal
from uuid import UUID

import asyncpg
import orjson
import structlog

from octollm.database.pool import TRANSIENT_POSTGRES_ERRORS, Connection, Pool, transaction
from octollm.database.queries import queries
from octollm.errors import EmbeddingError, StoreUnavailableError
from octollm.memory.chunk import Chunk, chunks
from octollm.memory.dense import Dense
from octollm.memory.ids import document_id, passage_id
from octollm.ports import Document, Ingested
from octollm.text.words import names

_SQL = queries("octollm.memory", "search")
_CUTTING = 1
"""Raised when documents would be cut differently: then the same text is no longer unchanged."""
_WORDS = 180
"""Longest passage in words and signs where no embedder counts tokens."""
_WORD = re.compile(r"\w+|[^\w\s]")
_FORMER = "former"
"""In place of an embedder's name: the store has vectors, but of a text before this one."""
_LEFT_S = 600
"""After how long an unfinished document is taken for abandoned."""
_log = structlog.get_logger(__name__)


class Documents:
    """The documents of all tenants."""

    def __init__(self, pool: Pool, dense: Dense | None) -> None:
        """`dense` None: passages are found by their words only."""
        self._pool = pool
        self._dense = dense

    async def ingest(self, tenant: str, document: Document, task: str | None = None) -> Ingested:
        """All or nothing to who searches by words; by meaning once this returns. `task`: whose result it is."""
        id_ = document_id(tenant, document.collection, document.name)
        sha256 = _fingerprint(document)
        async with self._locked(id_) as connection:
            known = await connection.fetchrow(_SQL["document"], id_)
            if known is not None and known["state"] == "ready" and known["sha256"] == sha256 and self._current(known):
                await connection.execute(_SQL["claim_for_task"], id_, task)
                return Ingested(document.name, "unchanged", known["passages"], known["tokens"])
            cut = await asyncio.to_thread(self._cut, document)
            ids = [passage_id(id_, number, one.text) for number, one in enumerate(cut)]
            tokens = sum(one.tokens for one in cut) if self._dense else 0
            async with connection.transaction():
                await connection.execute(
                    _SQL["put_document"],
                    *(id_, tenant, document.collection, document.name, document.media, document.text),
                    *(sha256, dict(document.attributes), self._embedder_of(known), tokens, task),
                )
                await connection.execute(_SQL["delete_passages"], id_)
                await connection.execute(
                    _SQL["put_passages"], id_, tenant, document.collection, _passage_rows(ids, cut)
                )
            if self._dense is not None:
                if known is not None:
                    await self._dense.store.delete_document(tenant, document.collection, document.name)
                await self._dense.put(tenant, document, ids, cut)
            await connection.execute(_SQL["ready"], id_)
        return Ingested(document.name, _state(known, sha256), len(cut), tokens)

    async def forget(self, tenant: str, collection: str, name: str) -> bool:
        """Whether it was there. Without the store that has its vectors it stays `deleting` until there is one."""
        id_ = document_id(tenant, collection, name)
        async with self._locked(id_) as connection:
            known = await connection.fetchrow(_SQL["document"], id_)
            if known is None:
                return False
            async with connection.transaction():
                await connection.execute(_SQL["delete_passages"], id_)
                await connection.execute(_SQL["leave"], id_)
            if self._dense is not None:
                await self._dense.store.delete_document(tenant, collection, name)
            if self._dense is not None or known["embedder"] is None:
                await connection.execute(_SQL["delete_document"], id_)
        return bool(known["state"] != "deleting")

    async def mend(self, most: int) -> int:
        """Finish what was left unfinished and embed anew what another embedder, or none, had; how many it was."""
        embedder = self._dense.embedder.name if self._dense else None
        async with transaction(self._pool) as connection:
            rows = await connection.fetch(_SQL["unfinished"], float(_LEFT_S), embedder, most)
        mended = 0
        for row in rows:
            if row["state"] == "deleting":
                mended += await self._finish_leaving(row)
                continue
            document = Document(row["name"], row["text"], row["collection"], row["media"], row["attributes"])
            try:
                await self.ingest(row["tenant"], document, row["task"])
                mended += 1
            except EmbeddingError as error:
                _log.warning("a document cannot be embedded", document=row["name"], error=error.message)
        return mended

    async def _finish_leaving(self, row: asyncpg.Record) -> int:
        if self._dense is None:
            return 0
        await self.forget(row["tenant"], row["collection"], row["name"])
        return 1

    def _current(self, known: asyncpg.Record) -> bool:
        """Without an embedder what another run embedded is left as it is."""
        return self._dense is None or known["embedder"] == self._dense.embedder.name

    def _cut(self, document: Document) -> list[Chunk]:
        if self._dense is None:
            return chunks(document.text, document.media, _count_words, _WORDS)
        return chunks(document.text, document.media, self._dense.embedder.count_tokens, self._dense.longest)

    def _embedder_of(self, known: asyncpg.Record | None) -> str | None:
        """Whose vectors are stored once what is taken in is ready. Those that cannot be deleted now must be later."""
        if self._dense is not None:
            return self._dense.embedder.name
        return None if known is None or known["embedder"] is None else _FORMER

    @asynccontextmanager
    async def _locked(self, document: UUID) -> AsyncIterator[Connection]:
        """A connection on which nobody else changes this document. Raises StoreUnavailableError while Postgres is
        away.
        """
        try:
            async with self._pool.acquire() as connection:
                await connection.execute(_SQL["lock_document"], str(document))
                try:
                    yield connection
                finally:
                    # A connection that broke has let go of its locks by itself.
                    if not connection.is_closed():
                        await connection.execute(_SQL["unlock_document"], str(document))
        except TRANSIENT_POSTGRES_ERRORS as error:
            raise StoreUnavailableError(f"Postgres: {str(error) or type(error).__name__}") from error


def _fingerprint(document: Document) -> str:
    parts = [_CUTTING, document.media, document.text, sorted(document.attributes.items())]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


def _state(known: asyncpg.Record | None, sha256: str) -> Literal["new", "replaced"]:
    """What came before counts only if somebody was told of it."""
    if known is None or known["state"] == "deleting":
        return "new"
    return "new" if known["state"] == "pending" and known["sha256"] == sha256 else "replaced"


def _passage_rows(ids: Sequence[UUID], cut: Sequence[Chunk]) -> list[dict[str, object]]:
    return [
        {
            "id": id_,
            "ordinal": number,
            "start_at": one.start,
            "end_at": one.end,
            "first_line": one.first_line,
            "last_line": one.last_line,
            "heading": one.heading,
            "text": one.text,
            "names": names(f"{one.heading}\n{one.text}"),
        }
        for number, (id_, one) in enumerate(zip(ids, cut, strict=True))
    ]


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(_WORD.findall(text)) for text in texts]
