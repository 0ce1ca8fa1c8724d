"""How long a search takes, by words, by meaning and by both, at 1,000, 10,000 and 100,000 passages; and ingestion.

Usage: python -m bench.hybrid [--sizes 1000,10000,100000] [--queries 200]. An embedded Postgres and an embedded vector
store of its own. Passages are made of words by Zipf's law, vectors lie in clusters; both are put in directly, since
embedding 100,000 passages says nothing about searching them. Each size is measured twice: all passages belong to the
tenant who searches (`one_tenant`), or a tenth of them does (`ten_tenants`). Ingestion goes the whole way, with the
embedder that the settings choose; without one it is null. The last line is one JSON object.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import uvloop
from numpy.typing import NDArray

from octollm.database.migrate import migrate
from octollm.database.pool import Pool, open_pool
from octollm.devstack.embedded.postgres import EmbeddedPostgres
from octollm.memory.dense import Dense
from octollm.memory.embed.choose import choose_embedder
from octollm.memory.ids import document_id, passage_id
from octollm.memory.ports import Point, VectorStore
from octollm.memory.stored_memory import StoredMemory
from octollm.memory.vectors.edge import EdgeStore
from octollm.ports import Document, SearchMode
from octollm.resources import share_dir
from octollm.settings.loader import load_settings
from octollm.text.words import names

_DIMENSION = 384
_VOCABULARY = 300_000
_WORDS = 120
"""In a passage."""
_BATCH = 2000
_CLUSTERS = 200
_INGESTED = 5
"""Times the project's own documents are taken in, each time under other names."""


@dataclass(frozen=True)
class Corpus:
    """Passages and their vectors, the same for the same size."""

    texts: list[str]
    vectors: NDArray[np.float32]


class Planted:
    """Stands in for a model while searching: a query's vector is near to the passage the query was made of."""

    name = "bench/planted"
    dimension = _DIMENSION
    max_tokens = 256

    def __init__(self) -> None:
        self.vectors: dict[str, NDArray[np.float32]] = {}

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Words."""
        return [len(text.split()) for text in texts]

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """What was planted."""
        return np.stack([self.vectors[text] for text in texts])

    async def close(self) -> None:
        """Nothing to let go of."""


def _corpus(size: int) -> Corpus:
    chance = np.random.default_rng(size)
    vocabulary = np.array([_word(number) for number in range(_VOCABULARY)])
    ranks = 1 / np.arange(1, _VOCABULARY + 1)
    drawn = chance.choice(_VOCABULARY, (size, _WORDS), p=ranks / ranks.sum())
    centres = chance.normal(size=(_CLUSTERS, _DIMENSION))
    vectors = centres[chance.integers(0, _CLUSTERS, size)] + 0.7 * chance.normal(size=(size, _DIMENSION))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Corpus([" ".join(words) for words in vocabulary[drawn]], vectors.astype(np.float32))


def _word(number: int) -> str:
    """Pronounceable, each another, none that a dictionary of English would cut."""
    text = ""
    number += 400
    while number:
        number, rest = divmod(number, 100)
        text += "bdfgkmnprt"[rest // 10] + "aou"[rest % 3] + "klmnprtvxz"[rest % 10]
    return text


async def _load(pool: Pool, store: VectorStore, corpus: Corpus, tenants: int) -> None:
    await pool.execute("TRUNCATE documents CASCADE")
    for begin in range(0, len(corpus.texts), _BATCH):
        points: list[Point] = []
        passages = []
        documents: dict[str, tuple[object, ...]] = {}
        for number in range(begin, min(begin + _BATCH, len(corpus.texts))):
            tenant, name, text = f"t{number % tenants}", f"d{number // 100}", corpus.texts[number]
            document = document_id(tenant, "documents", name)
            id_ = passage_id(document, number, text)
            documents[str(document)] = (document, tenant, "documents", name)
            passages.append((id_, document, tenant, "documents", number, 0, len(text), 1, 1, "", text, names(text)))
            points.append(Point(id_, corpus.vectors[number], tenant, "documents", name))
        await pool.executemany(
            """INSERT INTO documents (id, tenant, collection, name, media, text, sha256, attributes, embedder, state,
                                      tokens)
               VALUES ($1, $2, $3, $4, 'text', '', '', '{}', $5, 'ready', 0) ON CONFLICT DO NOTHING""",
            [(*one, Planted.name) for one in documents.values()],
        )
        await pool.executemany(
            """INSERT INTO passages (id, document, tenant, collection, ordinal, start_at, end_at, first_line, last_line,
                                     heading, text, names)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)""",
            passages,
        )
        await store.put(points)
    await pool.execute("VACUUM ANALYZE passages, documents")


def _queries(corpus: Corpus, tenants: int, number: int, planted: Planted) -> list[str]:
    """A handful of words out of one passage each, as a question has some of what answers it, and common ones."""
    chance = np.random.default_rng(1)
    made = []
    for drawn in chance.integers(0, len(corpus.texts), number):
        place = drawn - drawn % tenants  # one of tenant t0
        words = corpus.texts[place].split()
        query = " ".join([*chance.choice(words, 5, replace=False), *chance.choice(corpus.texts[0].split(), 2)])
        near = corpus.vectors[place] + 0.03 * chance.normal(size=_DIMENSION)
        planted.vectors[query] = (near / np.linalg.norm(near)).astype(np.float32)
        made.append(query)
    return made


async def _timed(memory_store: StoredMemory, queries: Sequence[str], mode: SearchMode) -> dict[str, float]:
    took = []
    for query in [*queries[:10], *queries]:
        began = time.perf_counter()
        await memory_store.search("t0", query, limit=10, mode=mode)
        took.append((time.perf_counter() - began) * 1000)
    p50, p95 = np.percentile(took[10:], [50, 95])
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2)}


async def _search(pool: Pool, folder: Path, size: int, number: int) -> dict[str, object]:
    corpus = _corpus(size)
    found: dict[str, object] = {}
    for label, tenants in (("one_tenant", 1), ("ten_tenants", 10)):
        planted, store = Planted(), EdgeStore(folder / f"{size}-{tenants}")
        await store.open(planted.name, planted.dimension)
        began = time.perf_counter()
        await _load(pool, store, corpus, tenants)
        _say(f"{size} passages of {tenants} tenants loaded in {time.perf_counter() - began:.0f} s")
        memory_store = StoredMemory(pool, Dense(planted, store))
        queries = _queries(corpus, tenants, number, planted)
        modes: tuple[SearchMode, ...] = ("hybrid", "keyword", "dense")
        found[label] = {mode: await _timed(memory_store, queries, mode) for mode in modes}
        _say(f"{size} {label}: {found[label]}")
        await store.close()
    return found


async def _ingest(pool: Pool, folder: Path) -> dict[str, object] | None:
    """Tokens of the embedder's own tokenizer per second of time and of this process' CPU: cut, embedded and stored."""
    chosen = await asyncio.to_thread(choose_embedder, load_settings().embedding)
    if chosen.embedder is None:
        _say(chosen.reason or "no embedder")
        return None
    store = EdgeStore(folder / "ingest")
    await store.open(chosen.embedder.name, chosen.embedder.dimension)
    memory_store = StoredMemory(pool, Dense(chosen.embedder, store))
    root = share_dir()
    texts = {str(path.relative_to(root)): path.read_text() for path in [*root.glob("*.md"), *root.glob("docs/**/*.md")]}
    began, cpu = time.perf_counter(), time.process_time()
    tokens = passages = 0
    for number in range(_INGESTED):
        documents = [Document(f"{number}/{name}", text, media="markdown") for name, text in texts.items()]
        for one in await memory_store.ingest("t0", documents):
            tokens, passages = tokens + one.tokens, passages + one.passages
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    await store.close()
    await chosen.embedder.close()
    return {
        "embedder": chosen.embedder.name,
        "tokens": tokens,
        "passages": passages,
        "tokens_per_s": round(tokens / took_s, 1),
        "tokens_per_cpu_s": round(tokens / cpu_s, 1),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def _measure(sizes: Sequence[int], queries: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = await EmbeddedPostgres.start(folder / "postgres", ephemeral=True)
        try:
            await migrate(server.dsn)
            async with await open_pool(server.dsn, 4) as pool:
                found: dict[str, object] = {"ingestion": await _ingest(pool, folder)}
                for size in sizes:
                    found[str(size)] = await _search(pool, folder, size, queries)
                return found
        finally:
            await server.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    print(orjson.dumps(uvloop.run(_measure(sizes, options.queries))).decode())


if __name__ == "__main__":
    main()
