"""An embedder and a vector store: stores passages and finds the nearest ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from octollm.memory.chunk import Chunk
from octollm.memory.ports import Embedder, Point, VectorStore
from octollm.ports import Document

_BATCH = 64
"""Passages embedded in one call."""
_MAX_TOKENS = 240
"""Maximum tokens of a passage, even if the embedder accepts more: a short passage is easier to check."""
_JOIN = " > "


@dataclass(frozen=True, slots=True)
class Dense:
    """An embedder with the vector store for its vectors."""

    embedder: Embedder
    store: VectorStore

    @property
    def max_passage_tokens(self) -> int:
        """Maximum tokens of a passage. A quarter of the embedder's maximum is left for the headings."""
        return max(1, min(_MAX_TOKENS, self.embedder.max_tokens * 3 // 4))

    async def put(self, tenant: str, document: Document, ids: Sequence[UUID], passages: Sequence[Chunk]) -> None:
        """Embed the passages of a document and store them under `ids`, one per passage."""
        short = self._short_headings({passage.heading for passage in passages})
        for begin in range(0, len(passages), _BATCH):
            some = passages[begin : begin + _BATCH]
            texts = [f"{short[one.heading]}\n{one.text}" if one.heading else one.text for one in some]
            vectors = await self.embedder.embed(texts)
            await self.store.put(
                [
                    Point(id_, vector, tenant, document.collection, document.name, document.attributes)
                    for id_, vector in zip(ids[begin : begin + _BATCH], vectors, strict=True)
                ]
            )

    async def near(
        self, tenant: str, query: str, limit: int, collection: str | None, attributes: Mapping[str, str] | None
    ) -> list[UUID]:
        """Return the ids of the passages nearest to `query`, best first."""
        vectors = await self.embedder.embed([query])
        found = await self.store.search(tenant, vectors[0], limit, collection=collection, attributes=attributes)
        return [one.id for one in found]

    def _short_headings(self, headings: set[str]) -> Mapping[str, str]:
        """Return each heading shortened to the tokens left for it. Outer headings are dropped first."""
        available = self.embedder.max_tokens - self.max_passage_tokens
        short = {heading: heading for heading in headings}
        while True:
            wanted = list(short)
            counted = self.embedder.count_tokens([short[heading] for heading in wanted])
            long = [
                heading
                for heading, tokens in zip(wanted, counted, strict=True)
                if tokens > available and short[heading]
            ]
            if not long:
                return short
            for heading in long:
                _, join, rest = short[heading].partition(_JOIN)
                short[heading] = rest if join else short[heading][: len(short[heading]) // 2]
