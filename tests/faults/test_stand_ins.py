"""What the harness puts in place of others does what it is there for: the vector store, and the proxy's traps."""

import asyncio
from uuid import uuid4

import pytest
from proxy import COMMIT, STORES, Moment, Proxy, Trap
from vectors import DIMENSION, VectorServer

from octollm.memory.embed.openai import OpenAiEmbedder
from octollm.memory.ports import Point
from octollm.memory.vectors.server import ServerStore


async def test_memory_s_own_client_and_embedder_are_served():
    server = VectorServer()
    server.start()
    store = ServerStore(f"http://127.0.0.1:{server.port}")
    embedder = OpenAiEmbedder("lengths", DIMENSION, f"http://127.0.0.1:{server.port}/v1")
    try:
        await store.open(embedder.name, embedder.dimension)
        one, two = await embedder.embed(["a", "bb"])
        await store.put(
            [Point(uuid4(), one, "t", "c", "first", {}), Point(uuid4(), two, "t", "c", "second", {"a": "b"})]
        )
        assert server.documents() == {"first": 1, "second": 1}
        await store.delete_document("t", "c", "first")
        assert server.documents() == {"second": 1}
    finally:
        await store.close()
        await embedder.close()
        await asyncio.to_thread(server.stop)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1024):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize("moment", ["before_request", "before_reply"])
async def test_a_trap_waits_for_the_commit_of_a_transaction_that_stores_something(moment: Moment):
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    way = Proxy(("127.0.0.1", server.sockets[0].getsockname()[1]))
    await way.start()
    sprung = asyncio.Event()
    way.traps.append(Trap(COMMIT, moment, sprung.set, STORES))
    reader, writer = await asyncio.open_connection("127.0.0.1", way.port)

    async def send(data: bytes) -> bytes:
        writer.write(data)
        return await reader.read(1024)

    for data in (b"BEGIN;", STORES, b"BEGIN;", b"SELECT", COMMIT):
        assert await send(data) == data
    assert not sprung.is_set()
    for data in (b"BEGIN;", STORES):
        assert await send(data) == data
    assert await send(COMMIT) == b"", "whoever is to be killed gets no answer"
    assert sprung.is_set()
    writer.close()
    await way.stop()
    server.close()
