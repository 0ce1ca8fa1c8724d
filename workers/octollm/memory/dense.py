"""Embeddings and a vector store together: passages in, nearest passages out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from octollm.memory.chunk import Chunk
from octollm.memory.ports import Embedder, Point, VectorStore
from octollm.ports import Document

_AT_ONCE = 64
"""Passages embedded in one call: bounds memory, keeps batches full."""
_LONGEST = 240
"""Tokens of a passage, also where the embedder could take more: a place to look at should be small."""
_JOIN = " > "


@dataclass(frozen=True, slots=True)
class Dense:
    """Only both together are of use."""

    embedder: Embedder
    store: VectorStore

    @property
    def longest(self) -> int:
        """Tokens of a passage: a quarter of what the embedder takes is left for its headings."""
        return max(1, min(_LONGEST, self.embedder.longest_tokens * 3 // 4))

    async def put(self, tenant: str, document: Document, ids: Sequence[UUID], passages: Sequence[Chunk]) -> None:
        """Embed and store passages under these ids."""
        short = self._short_headings({passage.heading for passage in passages})
        for begin in range(0, len(passages), _AT_ONCE):
            some = passages[begin : begin + _AT_ONCE]
            texts = [f"{short[one.heading]}\n{one.text}" if one.heading else one.text for one in some]
            vectors = await self.embedder.embed(texts)
            await self.store.put(
                [
                    Point(id_, vector, tenant, document.collection, document.name, document.attributes)
                    for id_, vector in zip(ids[begin : begin + _AT_ONCE], vectors, strict=True)
                ]
            )

    async def near(
        self, tenant: str, query: str, limit: int, collection: str | None, attributes: Mapping[str, str] | None
    ) -> list[UUID]:
        """Ids of the nearest passages, best first."""
        vectors = await self.embedder.embed([query])
        found = await self.store.search(tenant, vectors[0], limit, collection=collection, attributes=attributes)
        return [one.id for one in found]

    def _short_headings(self, headings: set[str]) -> Mapping[str, str]:
        """Each cut from the left to what is left for it; the innermost says most."""
        room = self.embedder.longest_tokens - self.longest
        short = {heading: heading for heading in headings}
        while True:
            wanted = list(short)
            counted = self.embedder.count_tokens([short[heading] for heading in wanted])
            long = [
                heading for heading, tokens in zip(wanted, counted, strict=True) if tokens > room and short[heading]
            ]
            if not long:
                return short
            for heading in long:
                _, join, rest = short[heading].partition(_JOIN)
                short[heading] = rest if join else short[heading][: len(short[heading]) // 2]
