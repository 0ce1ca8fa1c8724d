"""Ingests and deletes documents. Postgres is the source of truth; the vector store follows it.

A document is `pending` after its passages are committed until its vectors are stored, and `deleting` after its passages
are deleted until its vectors are. After a crash in between, a retry or `reconcile` completes the operation.
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

from octollm.database.pool import Connection, Pool, acquired, transaction
from octollm.database.queries import queries
from octollm.errors import EmbeddingError
from octollm.memory.chunk import Chunk, chunks
from octollm.memory.dense import Dense
from octollm.memory.ids import document_id, passage_id
from octollm.ports import Document, Ingested
from octollm.text.words import names

_SQL = queries("octollm.memory", "search")
_SPLITTER_VERSION = 1
"""Incremented when documents are split differently, so that unchanged texts are ingested again."""
_MAX_WORDS = 180
"""Maximum words and punctuation marks of a passage when there is no embedder to count tokens."""
_WORD = re.compile(r"\w+|[^\w\s]")
_FORMER = "former"
"""In place of an embedder's name: the store still has vectors of an earlier version of the text."""
_ABANDONED_S = 600
"""Age from which an unfinished document counts as abandoned."""
_log = structlog.get_logger(__name__)


class Documents:
    """The documents of all tenants."""

    def __init__(self, pool: Pool, dense: Dense | None) -> None:
        """`dense`: embedder and vector store; None: documents are found by keywords only."""
        self._pool = pool
        self._dense = dense

    async def ingest(self, tenant: str, document: Document, task: str | None = None) -> Ingested:
        """Store a document, replacing one with the same name. `task`: the task whose result it is.

        Keyword search sees the change at once and completely, vector search when this returns. Raises
        StoreUnavailableError, EmbeddingError or VectorStoreError.
        """
        id_ = document_id(tenant, document.collection, document.name)
        sha256 = _fingerprint(document)
        async with self._locked(id_) as connection:
            known = await connection.fetchrow(_SQL["document"], id_)
            if (
                known is not None
                and known["state"] == "ready"
                and known["sha256"] == sha256
                and self._is_current(known)
            ):
                await connection.execute(_SQL["claim_for_task"], id_, task)
                return Ingested(document.name, "unchanged", known["passages"], known["tokens"])
            cut = await asyncio.to_thread(self._split, document)
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

    async def delete(self, tenant: str, collection: str, name: str) -> bool:
        """Delete a document and return whether it existed.

        If it has vectors and there is no vector store here, it stays `deleting` until `reconcile` runs with one.
        """
        id_ = document_id(tenant, collection, name)
        async with self._locked(id_) as connection:
            known = await connection.fetchrow(_SQL["document"], id_)
            if known is None:
                return False
            async with connection.transaction():
                await connection.execute(_SQL["delete_passages"], id_)
                await connection.execute(_SQL["mark_deleting"], id_)
            if self._dense is not None:
                await self._dense.store.delete_document(tenant, collection, name)
            if self._dense is not None or known["embedder"] is None:
                await connection.execute(_SQL["delete_document"], id_)
        return bool(known["state"] != "deleting")

    async def reconcile(self, limit: int) -> int:
        """Complete up to `limit` abandoned documents, or embed those of another embedder; return how many."""
        embedder = self._dense.embedder.name if self._dense else None
        async with transaction(self._pool) as connection:
            rows = await connection.fetch(_SQL["unfinished"], float(_ABANDONED_S), embedder, limit)
        completed = 0
        for row in rows:
            if row["state"] == "deleting":
                completed += await self._finish_deletion(row)
                continue
            document = Document(row["name"], row["text"], row["collection"], row["media"], row["attributes"])
            try:
                await self.ingest(row["tenant"], document, row["task"])
                completed += 1
            except EmbeddingError as error:
                _log.warning("failed to embed a document", document=row["name"], error=error.message)
        return completed

    async def _finish_deletion(self, row: asyncpg.Record) -> int:
        if self._dense is None:
            return 0
        await self.delete(row["tenant"], row["collection"], row["name"])
        return 1

    def _is_current(self, known: asyncpg.Record) -> bool:
        """Whether the vectors are up to date. Without an embedder, existing vectors are left as they are."""
        return self._dense is None or known["embedder"] == self._dense.embedder.name

    def _split(self, document: Document) -> list[Chunk]:
        if self._dense is None:
            return chunks(document.text, document.media, _count_words, _MAX_WORDS)
        return chunks(document.text, document.media, self._dense.embedder.count_tokens, self._dense.max_passage_tokens)

    def _embedder_of(self, known: asyncpg.Record | None) -> str | None:
        """Return the embedder of the stored vectors once the document is ready.

        Without an embedder here, existing vectors cannot be deleted now; _FORMER marks them for a later deletion.
        """
        if self._dense is not None:
            return self._dense.embedder.name
        return None if known is None or known["embedder"] is None else _FORMER

    @asynccontextmanager
    async def _locked(self, document: UUID) -> AsyncIterator[Connection]:
        """Hold an advisory lock on the document; yields the connection. Raises StoreUnavailableError."""
        async with acquired(self._pool) as connection:
            await connection.execute(_SQL["lock_document"], str(document))
            try:
                yield connection
            finally:
                # Postgres releases the locks of a broken connection.
                if not connection.is_closed():
                    await connection.execute(_SQL["unlock_document"], str(document))


def _fingerprint(document: Document) -> str:
    parts = [_SPLITTER_VERSION, document.media, document.text, sorted(document.attributes.items())]
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()


def _state(known: asyncpg.Record | None, sha256: str) -> Literal["new", "replaced"]:
    """Return the state to report. An earlier version counts only if its ingestion was reported."""
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
