"""Memory of this process: Postgres, an embedder and a vector store, opened once and shared by the roles that need it.

An embedded vector store can be opened by one process only; another process fails to start with the store's own error.
A store that is unavailable delays only the messages that need it, not other roles.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import structlog

from octollm.database.pool import Pool
from octollm.errors import ContractError, StoreUnavailableError
from octollm.memory.deletion import delete_marked
from octollm.memory.dense import Dense
from octollm.memory.embed.choose import ChosenEmbedder, choose_embedder
from octollm.memory.indexer import Indexer
from octollm.memory.stored_memory import StoredMemory
from octollm.memory.vectors.choose import choose_store
from octollm.orchestrator.intake import InvalidMessage
from octollm.orchestrator.service import Answer
from octollm.ports import Document, Hits, Ingested, SearchMode
from octollm.protocol.handoff import Entry
from octollm.settings.loader import Settings

_LIMIT = 100
_NO_STORE = "only keyword search is available: no vector store is configured; set OCTOLLM_QDRANT_URL or qdrant.path"
_log = structlog.get_logger(__name__)


class ProcessMemory:
    """The `octollm.ports.MemoryStore` of this process, opened when first needed."""

    def __init__(self, settings: Settings, get_pool: Callable[[], Awaitable[Pool]], exits: AsyncExitStack) -> None:
        """`exits` closes what is opened."""
        self._settings = settings
        self._get_pool = get_pool
        self._exits = exits
        self._opening = asyncio.Lock()
        self._opened: StoredMemory | None = None
        self._chosen: ChosenEmbedder | None = None
        """Loaded once: loading it takes seconds of CPU, and the vector store may be unavailable for hours."""

    async def start(self) -> None:
        """Open memory; a store that is unavailable is only logged.

        Raises VectorStoreError or EmbeddingError if the settings or the store must be fixed first.
        """
        try:
            await self.opened()
        except StoreUnavailableError as error:
            _log.warning("memory is unavailable; steps and results that need it wait", error=error.message)

    async def opened(self) -> StoredMemory:
        """Return the opened memory. Raises StoreUnavailableError while a store is unavailable."""
        async with self._opening:
            if self._opened is None:
                pool = await self._get_pool()
                dense, lack = await self._dense()
                if lack is not None:
                    _log.warning(lack)
                self._opened = StoredMemory(pool, dense, lack)
            return self._opened

    async def _dense(self) -> tuple[Dense | None, str | None]:
        """Return the embedder with its vector store, or why there is none."""
        store = choose_store(self._settings.qdrant)
        if store is None:
            return None, _NO_STORE
        if self._chosen is None:
            self._chosen = await asyncio.to_thread(choose_embedder, self._settings.embedding)
            if self._chosen.embedder is not None:
                self._exits.push_async_callback(self._chosen.embedder.close)
        embedder = self._chosen.embedder
        if embedder is None:
            return None, self._chosen.reason
        await store.open(embedder.name, embedder.dimension)
        self._exits.push_async_callback(store.close)
        return Dense(embedder, store), None

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
        """See `MemoryStore`."""
        memory_store = await self.opened()
        return await memory_store.search(
            tenant, query, limit=limit, mode=mode, collection=collection, attributes=attributes
        )  # fmt: skip

    async def ingest(self, tenant: str, documents: Sequence[Document]) -> Sequence[Ingested]:
        """See `MemoryStore`."""
        return await (await self.opened()).ingest(tenant, documents)

    async def read(self, tenant: str, collection: str, document: str, start: int, end: int) -> str | None:
        """See `MemoryStore`."""
        return await (await self.opened()).read(tenant, collection, document, start, end)

    async def delete(self, tenant: str, collection: str, document: str) -> bool:
        """See `MemoryStore`."""
        return await (await self.opened()).delete(tenant, collection, document)

    async def index(self, entries: Sequence[Entry]) -> list[Answer | Exception]:
        """Index the results of finished tasks; return for each entry, in order, what follows from it.

        Raises StoreUnavailableError while Postgres is unavailable.
        """
        indexer = Indexer(await self._get_pool(), (await self.opened()).documents)
        return [_answer(error) for error in await indexer.handle(entries)]

    async def maintain(self) -> None:
        """Delete the data of tasks that are to be purged, and finish documents that a crash left unfinished."""
        documents = (await self.opened()).documents
        while await delete_marked(await self._get_pool(), documents, _LIMIT) == _LIMIT:
            pass
        finished = await documents.reconcile(_LIMIT)
        if finished:
            _log.info("finished incomplete documents", documents=finished)


def _answer(error: Exception | None) -> Answer | Exception:
    if isinstance(error, ContractError):
        return InvalidMessage(error.reason, error.message)
    return () if error is None else error
