"""MemoryStore on a real Postgres: what is found, what is never found, and what a crash leaves behind."""

import asyncio
from dataclasses import replace

import pytest

from octollm.errors import StoreUnavailableError
from octollm.memory.dense import Dense
from octollm.memory.frequencies import Frequencies
from octollm.memory.keyword import Where, find
from octollm.memory.stored_memory import StoredMemory
from octollm.ports import Document, Ingested
from tests.helpers.memory_fakes import HashingEmbedder, ListStore, of
from tests.helpers.orchestrators import rows

GUIDE = """# Leases

A worker renews its lease every five seconds. A lease that is not renewed may be reclaimed.

# Retries

Failed steps are tried again with full jitter. Set `max_failures` in streams.yaml, never `not_before`.
"""
COOKING = "Cut the onions. Fry them in butter until they are brown.\n\nAdd StoreUnavailableError flavoured salt."


def guide(text=GUIDE, **changes):
    return Document(**{"name": "guide.md", "text": text, "media": "markdown", "attributes": {"kind": "doc"}, **changes})


@pytest.fixture
def store():
    return ListStore()


@pytest.fixture(params=["both", "words"])
def memory_store(request, pool, store):
    """With vectors and without: what is promised of words holds for both."""
    if request.param == "words":
        return StoredMemory(pool, None)
    return StoredMemory(pool, Dense(HashingEmbedder(), store))


@pytest.fixture
def both(pool, store):
    return StoredMemory(pool, Dense(HashingEmbedder(), store))


async def documents(memory_store, query, tenant="a", **more):
    return [one.document for one in (await memory_store.search(tenant, query, **more)).passages]


async def test_a_passage_is_found_with_its_place(memory_store):
    await memory_store.ingest("a", [guide(), Document("cooking.txt", COOKING)])
    hits = await memory_store.search("a", "how often is a lease renewed?")
    best = hits.passages[0]
    assert (best.document, best.heading, best.first_line, best.last_line) == ("guide.md", "Leases", 1, 3)
    assert GUIDE[best.start : best.end] == best.text
    assert await memory_store.read("a", "documents", "guide.md", best.start, best.end) == best.text
    assert best.attributes == {"kind": "doc"}
    assert set(best.ranks) <= {"dense", "keyword"}
    assert [one.score for one in hits.passages] == sorted((one.score for one in hits.passages), reverse=True)


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("retry jitter", "guide.md"),
        ("RETRIED", "guide.md"),
        ("max_failures", "guide.md"),
        ("not_before", "guide.md"),
        ("where is max failures set", "guide.md"),
        ("streams.yaml", "guide.md"),
        ("StoreUnavailableError", "cooking.txt"),
        ("store unavailable error", "cooking.txt"),
        ("onion zzzz qqqq", "cooking.txt"),
        ("'); DROP TABLE passages; -- butter & ! | (", "cooking.txt"),
        ("butter\\", "cooking.txt"),
        ("renewed -zebra", "guide.md"),
    ],
)
async def test_words_and_names_are_found(memory_store, query, document):
    await memory_store.ingest("a", [guide(), Document("cooking.txt", COOKING)])
    assert (await documents(memory_store, query, mode="keyword"))[0] == document


@pytest.mark.parametrize("query", ["", "   ", "the of and", "&|!()", "zzzz"])
async def test_what_says_nothing_finds_nothing_by_words(memory_store, query):
    await memory_store.ingest("a", [guide()])
    assert await documents(memory_store, query, mode="keyword") == []


async def test_quoted_words_in_their_order_come_first(memory_store):
    await memory_store.ingest(
        "a", [Document("1", "salt salt salt brown butter"), Document("2", "butter is brown as salt")]
    )
    assert (await documents(memory_store, "salt butter brown", mode="keyword"))[0] == "1"
    assert await documents(memory_store, 'salt "butter is brown"', mode="keyword") == ["2", "1"]


async def test_filters_limit_every_leg(memory_store):
    await memory_store.ingest(
        "a",
        [
            guide(),
            guide(name="other", collection="notes"),
            guide(name="third", attributes={"kind": "note", "year": "2026"}),
        ],
    )
    for mode in ("hybrid", "dense", "keyword"):
        assert set(await documents(memory_store, "lease", mode=mode)) == {"guide.md", "other", "third"}
        assert set(await documents(memory_store, "lease", mode=mode, collection="notes")) == {"other"}
        assert set(await documents(memory_store, "lease", mode=mode, attributes={"kind": "note"})) == {"third"}
        assert await documents(memory_store, "lease", mode=mode, attributes={"kind": "doc", "year": "2026"}) == []
    assert len((await memory_store.search("a", "lease", limit=2)).passages) == 2


async def test_no_tenant_sees_anothers(memory_store):
    await memory_store.ingest("a", [guide()])
    await memory_store.ingest("b", [guide("Leases of tenant b.")])
    for mode in ("hybrid", "dense", "keyword"):
        for passage in (await memory_store.search("b", "lease renewed worker", mode=mode)).passages:
            assert passage.text == "Leases of tenant b."
    assert await memory_store.read("b", "documents", "guide.md", 0, 6) == "Leases"
    assert await memory_store.read("c", "documents", "guide.md", 0, 6) is None
    assert not await memory_store.delete("c", "documents", "guide.md")
    assert await memory_store.delete("b", "documents", "guide.md")
    assert "guide.md" in await documents(memory_store, "lease")


async def test_the_same_again_costs_nothing_and_another_text_replaces_it(pool, store):
    embedder = HashingEmbedder()
    memory_store = StoredMemory(pool, Dense(embedder, store))
    (first,) = await memory_store.ingest("a", [guide()])
    assert (first.state, first.passages) == ("new", 2)
    assert first.tokens > 30
    spent = len(embedder.embedded)
    assert await memory_store.ingest("a", [guide()]) == [Ingested("guide.md", "unchanged", 2, first.tokens)]
    assert len(embedder.embedded) == spent
    (second,) = await memory_store.ingest("a", [guide("# Leases\n\nNothing else.")])
    assert (second.state, second.passages) == ("replaced", 1)
    assert await documents(memory_store, "jitter", mode="keyword") == []
    assert len(store.points) == 1
    (third,) = await memory_store.ingest("a", [guide("# Leases\n\nNothing else.", attributes={"kind": "new"})])
    assert third.state == "replaced"
    assert [point.attributes for point in store.points.values()] == [{"kind": "new"}]


async def test_what_is_deleted_is_gone_everywhere(both, pool, store):
    await both.ingest("a", [guide(), guide(name="kept")])
    assert await both.delete("a", "documents", "guide.md")
    assert not await both.delete("a", "documents", "guide.md")
    assert set(await documents(both, "lease")) == {"kept"}
    assert await both.read("a", "documents", "guide.md", 0, 5) is None
    assert of(store, document="guide.md") == []
    assert {row["name"] for row in await rows(pool, "SELECT name FROM documents")} == {"kept"}


async def test_a_retry_finishes_what_a_crash_left(both, pool, store):
    """The store went away between the passages and their vectors, at every place where it may."""
    store.away = True
    with pytest.raises(StoreUnavailableError):
        await both.ingest("a", [guide()])
    # Postgres has the truth: what was taken in is found by its words.
    assert await documents(both, "jitter", mode="keyword") == ["guide.md"]
    store.away = False
    assert (await both.ingest("a", [guide()]))[0].state == "new"
    assert len(store.points) == 2
    store.away = True
    with pytest.raises(StoreUnavailableError):
        await both.ingest("a", [guide("# Other\n\nWords of a new text.")])
    store.away = False
    # The old vectors are still there, and nobody sees them.
    assert len(store.points) == 2
    assert [one.heading for one in (await both.search("a", "lease renewed", mode="dense")).passages] == []
    await both.ingest("a", [guide("# Other\n\nWords of a new text.")])
    assert len(store.points) == 1
    store.away = True
    with pytest.raises(StoreUnavailableError):
        await both.delete("a", "documents", "guide.md")
    store.away = False
    assert await both.read("a", "documents", "guide.md", 0, 5) is None
    assert not await both.delete("a", "documents", "guide.md")
    assert store.points == {}
    assert await rows(pool, "SELECT * FROM documents") == []


async def test_reconciling_finishes_what_is_never_retried(both, pool, store):
    await both.ingest("a", [guide(), guide(name="deleting")])
    store.away = True
    for broken in (both.ingest("a", [guide("New text.")]), both.delete("a", "documents", "deleting")):
        with pytest.raises(StoreUnavailableError):
            await broken
    store.away = False
    assert await both.documents.reconcile(10) == 0  # somebody may still be at it
    await rows(pool, "UPDATE documents SET changed_at = now() - interval '1 h' RETURNING 1")
    assert await both.documents.reconcile(10) == 2
    assert [point.document for point in store.points.values()] == ["guide.md"]
    assert await documents(both, "new text", mode="dense") == ["guide.md"]
    assert await both.documents.reconcile(10) == 0


async def test_documents_get_vectors_once_there_is_an_embedder(pool, store):
    words = StoredMemory(pool, None)
    (found,) = await words.ingest("a", [guide()])
    assert (found.state, found.tokens) == ("new", 0)
    later = StoredMemory(pool, Dense(HashingEmbedder(), store))
    assert await later.documents.reconcile(10) == 1
    assert await documents(later, "lease renewed", mode="dense")
    # Without one again nothing is lost, and what leaves keeps its place until its vectors can go.
    assert (await words.ingest("a", [guide()]))[0].state == "unchanged"
    assert await words.delete("a", "documents", "guide.md")
    assert await documents(words, "lease") == []
    await rows(pool, "UPDATE documents SET changed_at = now() - interval '1 h' RETURNING 1")
    assert await words.documents.reconcile(10) == 0
    assert await later.documents.reconcile(10) == 1
    assert store.points == {}


async def test_vectors_of_a_text_that_was_replaced_without_an_embedder_go_with_their_document(both, pool, store):
    words = StoredMemory(pool, None)
    await both.ingest("a", [guide(), guide(name="kept")])
    for text in ("New text.", "Newest text."):
        await words.ingest("a", [guide(text), guide(text, name="kept")])
    await words.delete("a", "documents", "guide.md")
    await rows(pool, "UPDATE documents SET changed_at = now() - interval '1 h' RETURNING 1")
    assert await both.documents.reconcile(10) == 2
    assert [point.document for point in store.points.values()] == ["kept"]
    assert await documents(both, "newest text", mode="dense") == ["kept"]


async def test_two_ingests_of_one_document_never_mix(both, store):
    texts = [f"# Number {number}\n\nText {number}.\n\n# End\n\nOf {number}." for number in range(12)]
    await asyncio.gather(*(both.ingest("a", [guide(text)]) for text in texts))
    left = (await both.read("a", "documents", "guide.md", 0, 100)) or ""
    hits = await both.search("a", "number text end", mode="dense")
    assert len(store.points) == len(hits.passages) == 2
    assert all(left[one.start : one.end] == one.text for one in hits.passages)


async def test_what_was_used_is_said(pool, store, both):
    lacking = StoredMemory(pool, None, "no model is there")
    for mode in ("hybrid", "dense"):
        hits = await lacking.search("a", "lease", mode=mode)
        assert (hits.used, hits.note) == ("keyword", "no model is there")
    assert (await lacking.search("a", "lease", mode="keyword")).note is None
    hits = await both.search("a", "lease")
    assert (hits.used, hits.note) == ("hybrid", None)
    store.away = True
    with pytest.raises(StoreUnavailableError):
        await both.search("a", "lease")


async def test_postgres_unavailable_is_transient(both, pool):
    await pool.close()
    for call in (both.search("a", "x"), both.ingest("a", [guide()]), both.delete("a", "b", "c"),
                 both.read("a", "b", "c", 0, 1), both.documents.reconcile(1)):  # fmt: skip
        with pytest.raises(StoreUnavailableError):
            await call


async def test_each_query_by_itself_keeps_tenants_apart(both, pool, store):
    await both.ingest("a", [guide()])
    async with pool.acquire() as connection:
        where = Where("b", None, None)
        assert await find(connection, Frequencies(), where, "lease renewed worker", 10) == []
    # Even a store that mixed tenants up would show nothing of another's.
    store.points = {id_: replace(point, tenant="b") for id_, point in store.points.items()}
    assert (await both.search("b", "lease renewed", mode="dense")).passages == []
