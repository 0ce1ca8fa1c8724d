"""What the harness puts in place of others does what it is for: the vector store, the disk, and the proxy's traps."""

import asyncio
import errno
import os
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import pytest

from octollm.memory.embed.openai import OpenAiEmbedder
from octollm.memory.ports import Point
from octollm.memory.vectors.server import ServerStore
from tests.faults.disks import NoDiskError, small_disk
from tests.faults.proxy import COMMIT, STORES, Moment, Proxy, Trap
from tests.faults.vectors import DIMENSION, VectorServer
from tests.helpers.waiting import until


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
    assert await send(COMMIT) == b"", "the process that is to be killed gets no answer"
    assert sprung.is_set()
    writer.close()
    await way.stop()
    server.close()


async def _nobody_to_stop() -> None:
    """Nobody has the folder open while it changes places."""


async def test_a_disk_is_filled_while_others_write_to_it_and_has_space_again(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "kept").write_bytes(b"before")
    enough, wrote, refused = Event(), Event(), Event()

    def write() -> None:
        while not enough.wait(0.001):  # slowly: it must not fill the disk by itself
            try:
                with (folder / "log").open("ab", buffering=0) as log:
                    log.write(bytes(4096))
                wrote.set()
            except OSError as error:
                assert error.errno == errno.ENOSPC
                refused.set()

    writer = Thread(target=write)
    try:
        async with small_disk(folder, _nobody_to_stop, _nobody_to_stop) as disk:
            writer.start()
            try:
                assert await asyncio.to_thread(wrote.wait, 60)
                disk.fill()
                assert os.statvfs(folder).f_bfree == 0
                assert await asyncio.to_thread(refused.wait, 60)
                disk.empty()
                wrote.clear()
                assert await asyncio.to_thread(wrote.wait, 60)
            finally:
                enough.set()
                await asyncio.to_thread(writer.join)
    except NoDiskError as error:
        pytest.skip(str(error))  # no small disk without root on Linux
    assert (folder / "kept").read_bytes() == b"before"
    assert sorted(path.name for path in folder.iterdir()) == ["kept", "log"]


async def test_a_lost_connection_swallows_everything_and_tells_neither_side():
    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _echo(reader, writer)
        ended.set()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    way = Proxy(("127.0.0.1", server.sockets[0].getsockname()[1]))
    await way.start()

    async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
        writer.write(b"hello")
        assert await reader.read(1024) == b"hello"
        return reader, writer

    old, old_writer = await connected()
    assert (way.lose(), way.unnoticed) == (1, 0)
    old_writer.write(b"more")
    await until(lambda: _unnoticed(way, 1))
    _, new_writer = await connected()  # new connections work, and by now "more" would have come back
    answer = asyncio.ensure_future(old.read(1024))
    await asyncio.wait([answer], timeout=0.05)
    assert not answer.done()
    old_writer.close()
    await until(lambda: _unnoticed(way, 0))
    assert not ended.is_set(), "the server does not learn that the process gave up"
    new_writer.close()
    await way.stop()
    server.close()
    assert await answer == b""


async def _unnoticed(way: Proxy, count: int) -> bool:
    return way.unnoticed == count
