"""Memory of this process: Postgres, an embedder and a vector store, opened once and shared by all roles that need it.

An embedded store belongs to one process; another one that wants it is refused when it starts, with the store's own
sentence. A store that is only away is waited for by whoever needs it, and holds up no other role.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import structlog

from octollm.database.pool import Pool
from octollm.errors import ContractError, StoreUnavailableError
from octollm.memory.deletion import delete_marked
from octollm.memory.dense import Dense
from octollm.memory.embed.choose import choose_embedder
from octollm.memory.indexer import Indexer
from octollm.memory.stored_memory import StoredMemory
from octollm.memory.vectors.choose import choose_store
from octollm.orchestrator.messages import Answer, Incoming, Outgoing, Unreadable
from octollm.ports import Document, Hits, Ingested, SearchMode
from octollm.settings.loader import Settings

_AT_ONCE = 100
_NO_STORE = "search is by keywords only: no vector store is configured; set OCTOLLM_QDRANT_URL or qdrant.path"
_log = structlog.get_logger(__name__)


class ProcessMemory:
    """`octollm.ports.MemoryStore`, opened with the first need of it."""

    def __init__(self, settings: Settings, get_pool: Callable[[], Awaitable[Pool]], exits: AsyncExitStack) -> None:
        """What is opened is closed by `exits`."""
        self._settings = settings
        self._get_pool = get_pool
        self._exits = exits
        self._opening = asyncio.Lock()
        self._opened: StoredMemory | None = None

    async def start(self) -> None:
        """Open it. Raises VectorStoreError or EmbeddingError where waiting would not help; a store may be away."""
        try:
            await self.opened()
        except StoreUnavailableError as error:
            _log.warning("memory is not there yet; what needs it waits", error=error.message)

    async def opened(self) -> StoredMemory:
        """The one of this process. Raises StoreUnavailableError while a store is away."""
        async with self._opening:
            if self._opened is None:
                pool = await self._get_pool()
                dense, lack = await self._dense()
                if lack is not None:
                    _log.warning(lack)
                self._opened = StoredMemory(pool, dense, lack)
            return self._opened

    async def _dense(self) -> tuple[Dense | None, str | None]:
        """Both, or why there is not both."""
        store = choose_store(self._settings.qdrant)
        if store is None:
            return None, _NO_STORE
        chosen = await asyncio.to_thread(choose_embedder, self._settings.embedding)
        if chosen.embedder is None:
            return None, chosen.reason
        try:
            await store.open(chosen.embedder.name, chosen.embedder.dimension)
        except BaseException:
            await chosen.embedder.close()
            raise
        self._exits.push_async_callback(chosen.embedder.close)
        self._exits.push_async_callback(store.close)
        return Dense(chosen.embedder, store), None

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
        """As MemoryStore says."""
        memory_store = await self.opened()
        return await memory_store.search(
            tenant, query, limit=limit, mode=mode, collection=collection, attributes=attributes
        )  # fmt: skip

    async def ingest(self, tenant: str, documents: Sequence[Document]) -> Sequence[Ingested]:
        """As MemoryStore says."""
        return await (await self.opened()).ingest(tenant, documents)

    async def read(self, tenant: str, collection: str, document: str, start: int, end: int) -> str | None:
        """As MemoryStore says."""
        return await (await self.opened()).read(tenant, collection, document, start, end)

    async def delete(self, tenant: str, collection: str, document: str) -> bool:
        """As MemoryStore says."""
        return await (await self.opened()).delete(tenant, collection, document)

    async def index(self, messages: Sequence[Incoming]) -> list[Answer | Exception]:
        """Index a batch of messages from `results`, and return an answer or error for each."""
        indexer = Indexer(await self._get_pool(), (await self.opened()).documents)
        return [_answer(fault) for fault in await indexer.handle(messages)]

    async def tend(self) -> None:
        """Forget the tasks that are to be purged, finish the documents that were left unfinished."""
        documents = (await self.opened()).documents
        while await delete_marked(await self._get_pool(), documents, _AT_ONCE) == _AT_ONCE:
            pass
        mended = await documents.reconcile(_AT_ONCE)
        if mended:
            _log.info("finished documents that were left unfinished", documents=mended)


def _answer(fault: Exception | None) -> Answer | Exception:
    if isinstance(fault, ContractError):
        return Unreadable(fault.reason, fault.message)
    return Outgoing() if fault is None else fault
