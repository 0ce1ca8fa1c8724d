"""What every vector store promises. The same tests for all that can be had here; a server only where one is named."""

import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from octollm.errors import StoreUnavailableError, VectorStoreError
from octollm.memory.ports import Point, VectorStore
from octollm.memory.vectors.edge import EdgeStore
from octollm.memory.vectors.local import LocalStore
from octollm.memory.vectors.server import ServerStore

# Read here and not through the settings: it says what the tests can measure.
SERVER = os.environ.get("OCTOLLM_QDRANT_URL", "")
KINDS = ["edge", "local", *(["server"] if SERVER else [])]
EMBEDDED = ["edge", "local"]
SPACE = UUID("7b0c6a0e-59c5-4f3f-a6b5-30f0e4f2f7a1")

Reopen = Callable[[], VectorStore]


@pytest.fixture(params=KINDS)
async def reopen(request, tmp_path: Path) -> AsyncIterator[Reopen]:
    """Makes a store, not opened, over the same vectors each time."""
    if request.param == "server":
        name = f"test_{secrets.token_hex(6)}"
        yield lambda: ServerStore(SERVER, collection=name)
        client = AsyncQdrantClient(url=SERVER)
        await client.delete_collection(name)
        await client.close()
    else:
        kind = {"edge": EdgeStore, "local": LocalStore}[request.param]
        yield lambda: kind(tmp_path / "vectors")


@pytest.fixture
async def store(reopen: Reopen) -> AsyncIterator[VectorStore]:
    made = reopen()
    await made.open("test/four", 4)
    yield made
    await made.close()


def unit(*numbers) -> np.ndarray:
    vector = np.array(numbers, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def point(name, *numbers, tenant="a", collection="docs", document="one.md", **attributes) -> Point:
    return Point(uuid5(SPACE, f"{tenant}/{name}"), unit(*numbers), tenant, collection, document, attributes)


async def found(store, tenant, *numbers, limit=10, **filters):
    return [near.id for near in await store.search(tenant, unit(*numbers), limit, **filters)]


async def test_the_nearest_come_first_with_their_cosine(store):
    near, far, opposite = point("near", 1, 0.1, 0, 0), point("far", 0, 1, 0, 0), point("opposite", -1, 0, 0, 0)
    await store.put([far, opposite, near])
    answer = await store.search("a", unit(1, 0, 0, 0), 10)
    assert [one.id for one in answer] == [near.id, far.id, opposite.id]
    assert [one.score for one in answer] == pytest.approx([float(near.vector[0]), 0, -1], abs=1e-5)
    assert await found(store, "a", 1, 0, 0, 0, limit=1) == [near.id]
    assert await found(store, "a", 1, 0, 0, 0, limit=0) == []


async def test_no_call_sees_or_touches_another_tenants_points(store):
    mine, theirs = point("same", 1, 0, 0, 0), point("same", 1, 0, 0, 0, tenant="b")
    await store.put([mine, theirs])
    assert await found(store, "a", 1, 0, 0, 0) == [mine.id]
    assert await found(store, "b", 1, 0, 0, 0) == [theirs.id]
    assert await found(store, "nobody", 1, 0, 0, 0) == []
    await store.delete("a", [theirs.id])
    await store.delete_document("a", "docs", "one.md")
    assert (await store.count("a"), await store.count("b")) == (0, 1)


async def test_putting_twice_replaces(store):
    await store.put([point("one", 1, 0, 0, 0, kind="old")])
    await store.put([point("one", 0, 1, 0, 0, document="two.md", kind="new")])
    assert await store.count("a") == 1
    assert (await store.search("a", unit(0, 1, 0, 0), 1))[0].score == pytest.approx(1, abs=1e-5)
    assert await found(store, "a", 0, 1, 0, 0, attributes={"kind": "old"}) == []
    await store.delete_document("a", "docs", "one.md")
    assert await store.count("a") == 1


async def test_a_document_is_removed_from_its_own_collection_only(store):
    kept = [point("1", 1, 0, 0, 0, document="two.md"), point("2", 1, 0, 0, 0, collection="notes")]
    await store.put([*kept, point("3", 1, 0, 0, 0), point("4", 0, 1, 0, 0)])
    await store.delete_document("a", "docs", "one.md")
    await store.delete_document("a", "docs", "never.md")
    assert set(await found(store, "a", 1, 0, 0, 0)) == {one.id for one in kept}


async def test_points_are_removed_by_id(store):
    first, second = point("1", 1, 0, 0, 0), point("2", 0, 1, 0, 0)
    await store.put([first, second])
    await store.delete("a", [])
    await store.delete("a", [first.id, UUID(int=0)])
    assert await found(store, "a", 1, 0, 0, 0) == [second.id]


async def test_filters_hold_together_and_names_are_no_paths(store):
    odd = {"a.b[0]": "x", 'quo"te': "ü\n", "": ""}
    points = [
        point("1", 1, 0, 0, 0, lang="en", year="2024"),
        point("2", 1, 0, 0, 0, lang="en", year="2025"),
        point("3", 1, 0, 0, 0, collection="notes", lang="en", year="2025"),
        Point(uuid5(SPACE, "odd"), unit(1, 0, 0, 0), "a", "docs", "two.md", odd),
    ]
    await store.put(points)
    wanted = {"lang": "en", "year": "2025"}
    assert set(await found(store, "a", 1, 0, 0, 0, attributes=wanted)) == {points[1].id, points[2].id}
    assert await found(store, "a", 1, 0, 0, 0, attributes=wanted, collection="docs") == [points[1].id]
    assert await found(store, "a", 1, 0, 0, 0, attributes=odd) == [points[3].id]
    assert await found(store, "a", 1, 0, 0, 0, attributes={"a.b[0]": "y"}) == []


async def test_more_points_than_one_request_takes(store):
    rng = np.random.default_rng(3)
    points = [point(str(n), *rng.standard_normal(4)) for n in range(300)]
    await store.put(points)
    assert await store.count("a") == 300
    exact = max(points, key=lambda one: float(one.vector @ points[5].vector))
    assert await found(store, "a", *points[5].vector, limit=1) == [exact.id]


async def test_what_was_put_is_there_after_reopening(reopen):
    first = reopen()
    await first.open("test/four", 4)
    await first.put([point("1", 1, 0, 0, 0), point("2", 0, 1, 0, 0)])
    await first.delete("a", [point("2", 0, 1, 0, 0).id])
    await first.close()
    second = reopen()
    await second.open("test/four", 4)
    assert await found(second, "a", 1, 0, 0, 0) == [point("1", 1, 0, 0, 0).id]
    await second.close()


@pytest.mark.parametrize(("embedder", "dimension"), [("test/four", 5), ("test/other", 4)])
async def test_vectors_of_another_embedder_or_dimension_are_refused(reopen, embedder, dimension):
    first = reopen()
    await first.open("test/four", 4)
    await first.put([point("1", 1, 0, 0, 0)])
    await first.close()
    with pytest.raises(VectorStoreError, match=r"test/four with 4 dimensions, .* set the section embedding as it was"):
        await reopen().open(embedder, dimension)
    again = reopen()
    await again.open("test/four", 4)
    assert await again.count("a") == 1
    await again.close()


async def test_a_vector_that_does_not_fit_is_refused(store):
    with pytest.raises(VectorStoreError, match="3 numbers"):
        await store.put([point("ok", 1, 0, 0, 0), point("short", 1, 0, 0)])
    with pytest.raises(VectorStoreError, match="3 numbers"):
        await store.search("a", unit(1, 0, 0), 1)
    with pytest.raises(VectorStoreError, match="not finite"):
        await store.put([point("nothing", 1, float("nan"), 0, 0)])
    assert await store.count("a") == 0


async def test_a_closed_store_says_so(reopen):
    store = reopen()
    with pytest.raises(VectorStoreError, match="not open"):
        await store.count("a")
    await store.open("test/four", 4)
    await store.close()
    await store.close()
    with pytest.raises(VectorStoreError):
        await store.count("a")


OWNER = """
import asyncio, sys
from pathlib import Path
from octollm.memory.vectors.{module} import {kind}

async def main():
    store = {kind}(Path(sys.argv[1]))
    await store.open("test/four", 4)
    print("open", flush=True)
    sys.stdin.read()
    await store.close()

asyncio.run(main())
"""


def owner_of(folder: Path, kind: str) -> subprocess.Popen[str]:
    program = OWNER.format(module=kind, kind={"edge": "EdgeStore", "local": "LocalStore"}[kind])
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")


@pytest.mark.parametrize("kind", EMBEDDED)
async def test_an_embedded_store_belongs_to_one_process(kind, tmp_path):
    mine = {"edge": EdgeStore, "local": LocalStore}[kind](tmp_path)
    with owner_of(tmp_path, kind) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        with pytest.raises(VectorStoreError, match=r"belongs to one process.*OCTOLLM_QDRANT_URL"):
            await mine.open("test/four", 4)
        owner.communicate("")
    await mine.open("test/four", 4)
    await mine.close()


async def test_a_server_that_is_unavailable_is_not_ready(unused_tcp_port):
    store = ServerStore(f"http://user:hidden@127.0.0.1:{unused_tcp_port}")
    with pytest.raises(StoreUnavailableError, match="cannot be reached") as caught:
        await store.open("test/four", 4)
    assert "hidden" not in str(caught.value)
