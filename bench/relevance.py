"""How well searches find what answers questions about the project's own documents, by several ways of searching.

Usage: python -m bench.relevance. An embedded Postgres and Qdrant's local mode of its own; `bench/questions.json` holds
questions, each with the document and words that the passage to be found has. The embedder is what the settings choose;
without one only the ways by words are compared. The last line is one JSON object: for each way `first` (share of
questions whose first passage is right), `five` (right one among five) and `mrr` (mean of 1/rank, within ten).
"""

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import uvloop

from octollm.database.migrate import migrate
from octollm.database.pool import Pool, open_pool
from octollm.devstack.embedded.postgres import EmbeddedPostgres
from octollm.memory.dense import Dense
from octollm.memory.embed.choose import choose_embedder
from octollm.memory.stored_memory import StoredMemory
from octollm.memory.vectors.local import LocalStore
from octollm.ports import Document, SearchMode
from octollm.resources import share_dir
from octollm.settings.loader import load_settings

_TENANT = "bench"
_WAYS = {
    # What Postgres offers by itself: every word must be there.
    "websearch": "websearch_to_tsquery('english', plain_words($1))",
    # Any word, the parser's & turned into |.
    "any_word": "replace(plainto_tsquery('english', plain_words($1))::text, '&', '|')::tsquery",
}
Search = Callable[[str], Awaitable[Sequence[tuple[str, str]]]]
"""Document and text of what was found, best first."""


@dataclass(frozen=True)
class Question:
    """One line of the questions' file."""

    question: str
    document: str
    has: str


def _documents() -> list[Document]:
    root = share_dir()
    paths = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    return [Document(str(path.relative_to(root)), path.read_text(), media="markdown") for path in sorted(paths)]


def _by_postgres(pool: Pool, query: str) -> Search:
    async def search(question: str) -> Sequence[tuple[str, str]]:
        rows = await pool.fetch(
            f"""SELECT documents.name, passages.text FROM passages JOIN documents ON documents.id = passages.document
                WHERE passages.words @@ {query} ORDER BY ts_rank_cd(passages.words, {query}) DESC LIMIT 10""",  # noqa: S608
            question,
        )
        return [(row["name"], row["text"]) for row in rows]

    return search


def _by_memory_store(memory_store: StoredMemory, mode: SearchMode) -> Search:
    async def search(question: str) -> Sequence[tuple[str, str]]:
        hits = await memory_store.search(_TENANT, question, mode=mode)
        return [(one.document, one.text) for one in hits.passages]

    return search


async def _score(search: Search, questions: Sequence[Question]) -> dict[str, float]:
    ranks = []
    for one in questions:
        found = await search(one.question)
        right = [n for n, (name, text) in enumerate(found, 1) if name == one.document and one.has in text]
        ranks.append(right[0] if right else None)
        if not right or right[0] > 5:
            print(f"  not among five: {one.question}", file=sys.stderr)
    count = len(questions)
    return {
        "first": round(sum(rank == 1 for rank in ranks) / count, 3),
        "five": round(sum(rank is not None and rank <= 5 for rank in ranks) / count, 3),
        "mrr": round(sum(1 / rank for rank in ranks if rank) / count, 3),
    }


async def _measure() -> dict[str, object]:
    text = (Path(__file__).parent / "questions.json").read_bytes()
    questions = [Question(**one) for one in orjson.loads(text)]
    with tempfile.TemporaryDirectory() as folder:
        server = await EmbeddedPostgres.start(Path(folder), ephemeral=True)
        try:
            await migrate(server.dsn)
            async with await open_pool(server.dsn, 4) as pool:
                return await _compare(pool, questions)
        finally:
            await server.stop()


async def _compare(pool: Pool, questions: Sequence[Question]) -> dict[str, object]:
    chosen = await asyncio.to_thread(choose_embedder, load_settings().embedding)
    dense = None
    if chosen.embedder is not None:
        store = LocalStore(None)
        await store.open(chosen.embedder.name, chosen.embedder.dimension)
        dense = Dense(chosen.embedder, store)
    memory_store = StoredMemory(pool, dense, chosen.reason)
    taken = await memory_store.ingest(_TENANT, _documents())
    modes: tuple[SearchMode, ...] = ("keyword", "dense", "hybrid") if dense else ("keyword",)
    ways = {name: _by_postgres(pool, query) for name, query in _WAYS.items()}
    ways |= {mode: _by_memory_store(memory_store, mode) for mode in modes}
    found: dict[str, object] = {"questions": len(questions), "passages": sum(one.passages for one in taken)}
    for name, search in ways.items():
        print(name, file=sys.stderr)
        found[name] = await _score(search, questions)
    return found


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(_measure())).decode())
