"""The roles retriever and memory among all others: documents in, answers out, stores that are taken or away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import orjson
import pytest
import redis.asyncio

from octollm.contracts import TaskResult, write
from octollm.errors import StoreUnavailableError, VectorStoreError
from octollm.memory.embed.choose import ChosenEmbedder
from octollm.memory.vectors.edge import EdgeStore
from octollm.resources import schemas_path
from octollm.runtime.memory_role import ProcessMemory
from octollm.runtime.roles import python_roles
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import Settings, load_settings
from octollm.topology import load_topology
from tests.helpers.consumers import KEYS
from tests.helpers.orchestrators import rows
from tests.helpers.tasks import ended, put
from tests.helpers.waiting import until

GUIDE = "# Leases\n\nA worker renews its lease every five seconds.\n\n# Other\n\nOctopuses have eight arms.\n"


@pytest.fixture
def settings(redis_server, dsn, monkeypatch) -> Settings:
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_EMBEDDING_PROVIDER", "none")
    return load_settings()


@asynccontextmanager
async def running(settings: Settings, client: redis.asyncio.Redis) -> AsyncIterator[asyncio.Task[None]]:
    """All Python roles, once they read; embedders and servers that are unavailable make the start slow."""
    topology = load_topology(topology_path(settings), schemas_path())
    stop = asyncio.Event()
    work = asyncio.create_task(run_roles(list(python_roles(topology)), settings, topology, concurrency=None, stop=stop))

    async def reads() -> bool:
        return work.done() or bool(await client.exists("{l0}:results"))

    try:
        await until(reads)
        yield work
    finally:
        stop.set()
        await asyncio.wait_for(work, 120)


async def test_documents_are_taken_in_and_a_question_is_answered_with_citations(client, settings):
    async with running(settings, client):
        documents = [{"name": "guide.md", "text": GUIDE, "attributes": {"kind": "doc"}}]
        taken = await ended(client, await put(client, kind="ingest", input={"documents": documents}))
        assert taken["state"] == "succeeded"
        (one,) = orjson.loads(taken["result"])["answer"]["documents"]
        assert (one["name"], one["state"], one["passages"], one["tokens"]) == ("guide.md", "new", 2, 0)
        question = "How often is a lease renewed?"
        for given in ({}, {"collection": "documents"}, {"attributes": {"kind": "doc"}}):
            asked = await ended(client, await put(client, kind="ask", input={"question": question, **given}))
            assert asked["state"] == "succeeded", asked
            answer = orjson.loads(asked["result"])["answer"]
            assert answer["text"] == "A worker renews its lease every five seconds. [1]"
            (citation,) = answer["citations"]
            assert (citation["document"], citation["first_line"], citation["last_line"]) == ("guide.md", 3, 3)
            assert answer["searched_by"] == "keyword"
            assert "embedding.provider is none" in answer["note"] or "vector store" in answer["note"]
        nothing = {"question": question, "collection": "elsewhere"}
        asked = await ended(client, await put(client, kind="ask", input=nothing))
        assert asked["state"] == "succeeded"
        answer = orjson.loads(asked["result"])["answer"]
        assert (answer["found"], answer["text"], answer["citations"]) == (False, "", [])


async def test_a_document_with_a_secret_is_not_taken_in(client, settings, pool):
    async with running(settings, client):
        document = {"name": "leak.md", "text": "key: " + "AKIA" + "ABCDEFGH" * 2}
        status = await ended(client, await put(client, kind="ingest", input={"documents": [document]}))
        assert (status["state"], status["reason"]) == ("failed", "judged")
        assert await rows(pool, "SELECT * FROM documents") == []


async def test_a_result_that_cannot_be_read_is_a_dead_letter(client, settings, pool):
    async with running(settings, client):
        await client.xadd("{l0}:results", {"type": "task.result.v1", "id": "nonsense", "body": "{"})

        async def stored() -> bool:
            return bool(await rows(pool, "SELECT * FROM dead_letters WHERE reason = 'malformed'"))

        await until(stored)
        assert await client.xlen("{l0}:results") == 0


async def test_a_finished_task_is_indexed(client, settings, pool):
    async with running(settings, client):
        task = await put(client, kind="note", input={"text": "keep this"})
        status = await ended(client, task)
        result = TaskResult.model_validate_json(status["result"])
        fields = {"type": "task.result.v1", "id": task, "tenant": "default", "traceparent": "", "body": write(result)}
        await client.xadd("{l0}:results", fields)

        async def indexed() -> bool:
            return bool(await rows(pool, "SELECT * FROM tasks WHERE indexed_at IS NOT NULL"))

        await until(indexed)
        (artifact,) = await rows(pool, "SELECT task, title, answer FROM artifacts")
        assert (artifact["task"], artifact["title"]) == (task, "keep it")
        assert artifact["answer"]["text"] == "keep this"


async def test_an_embedded_store_that_another_has_is_refused_in_one_sentence(client, settings, monkeypatch, tmp_path):
    other = EdgeStore(tmp_path / "vectors")
    await other.open("someone/else", 384)
    try:
        monkeypatch.setenv("OCTOLLM_QDRANT_PATH", str(tmp_path / "vectors"))
        monkeypatch.setenv("OCTOLLM_EMBEDDING_PROVIDER", "openai")
        monkeypatch.setenv("OCTOLLM_EMBEDDING_MODEL", "any")
        monkeypatch.setenv("OPENAI_API_KEY", "unused")
        with pytest.raises(VectorStoreError, match="OCTOLLM_QDRANT_URL"):
            async with running(load_settings(), client) as work:
                await work
    finally:
        await other.close()


async def test_a_server_that_is_unavailable_holds_up_only_who_needs_it(client, settings, monkeypatch):
    monkeypatch.setenv("OCTOLLM_QDRANT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OCTOLLM_EMBEDDING_PROVIDER", "openai")
    monkeypatch.setenv("OCTOLLM_EMBEDDING_MODEL", "any")
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    monkeypatch.setenv("OCTOLLM_WORKER_DRAIN_S", "1")
    async with running(load_settings(), client):
        waiting = await put(client, kind="ask", input={"question": "anything?"})
        fine = await ended(client, await put(client, kind="note", input={"text": "fine"}))
        assert fine["state"] == "succeeded"
        assert await client.hget(KEYS.status(waiting), "state") == b"running"


async def test_an_embedder_is_loaded_once_however_often_the_vector_store_is_unavailable(settings, pool, monkeypatch):
    loaded: list[str] = []

    class Embedder:
        name, dimension = "one", 384

        async def close(self) -> None:
            loaded.append("closed")

    class Store:
        async def open(self, *_: object) -> None:
            raise StoreUnavailableError("the Qdrant server is unavailable")

    def load(_section):
        loaded.append("loaded")
        return ChosenEmbedder(cast("Any", Embedder()), None)

    monkeypatch.setattr("octollm.runtime.memory_role.choose_embedder", load)
    monkeypatch.setattr("octollm.runtime.memory_role.choose_store", lambda _section: Store())

    async def get_pool():
        return pool

    async with AsyncExitStack() as exits:
        memory = ProcessMemory(settings, get_pool, exits)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await memory.opened()
        assert loaded == ["loaded"]
    assert loaded == ["loaded", "closed"]
