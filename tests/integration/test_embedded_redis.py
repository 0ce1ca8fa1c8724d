"""The embedded Redis: found, new enough, on its own port, and its data outlives a stop."""

import asyncio
import signal
import stat
from pathlib import Path

import pytest

from octollm.devstack.embedded.ports import LOOPBACK, Ports
from octollm.devstack.embedded.redis import EmbeddedRedis, find_server
from octollm.errors import StartError
from octollm.settings.loader import load_settings


@pytest.fixture
def server() -> str:
    """The one that the whole run is about."""
    return load_settings().redis.server


async def ask(redis: EmbeddedRedis, command: str) -> bytes:
    port = int(redis.url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"{command}\r\nQUIT\r\n".encode())
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_two_servers_side_by_side_and_data_that_stays(tmp_path: Path, server: str):
    with Ports() as ports:
        first = await EmbeddedRedis.start(tmp_path / "a folder", ports, server=server)
        try:
            second = await EmbeddedRedis.start(tmp_path / "other", ports, server=server)
            await second.stop()
            assert first.url != second.url
            assert await ask(first, "SET kept yes") == b"+OK\r\n+OK\r\n"
            assert b"appendonly\r\n$3\r\nyes" in await ask(first, "CONFIG GET appendonly")
            assert b"everysec" in await ask(first, "CONFIG GET appendfsync")
            assert b"noeviction" in await ask(first, "CONFIG GET maxmemory-policy")
        finally:
            await first.stop()
        assert first.child.exit_code == 0
        again = await EmbeddedRedis.start(tmp_path / "a folder", ports, server=server, synced=True)
        try:
            assert b"always" in await ask(again, "CONFIG GET appendfsync")
            assert await ask(again, "GET kept") == b"$3\r\nyes\r\n+OK\r\n"
        finally:
            await again.stop()
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o700


async def test_a_broken_file_is_reported_with_the_log(tmp_path: Path, server: str):
    with Ports() as ports:
        redis = await EmbeddedRedis.start(tmp_path, ports, server=server)
        await ask(redis, "SET a b")
        await redis.stop()
        (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
        log.write_bytes(b"rubbish\r\n" + log.read_bytes())
        with pytest.raises(StartError, match=r"(?s)Redis ended with exit code 1; .*Bad file format"):
            await EmbeddedRedis.start(tmp_path, ports, server=server)


async def test_its_sudden_end_is_reported(tmp_path: Path, server: str):
    with Ports() as ports:
        redis = await EmbeddedRedis.start(tmp_path, ports, server=server)
        redis.child.send(signal.SIGKILL)
        await redis.child.wait()
        assert "Redis was ended by SIGKILL" in str(redis.child.ended())


def test_a_missing_server_says_what_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=r"not found.*apt-get install redis-server.*OCTOLLM_REDIS_URL"):
        find_server()


@pytest.mark.parametrize(
    ("says", "expected"),
    [("Redis server v=6.2.14 sha=0", "version 6.2.14, older than 7.0"), ("nonsense", "version nonsense")],
)
def test_an_old_server_is_refused(tmp_path: Path, monkeypatch, says: str, expected: str):
    old = tmp_path / "redis-server"
    old.write_text(f"#!/bin/sh\necho '{says}'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=expected):
        find_server()


def test_valkey_will_do(tmp_path: Path, monkeypatch):
    server = tmp_path / "valkey-server"
    server.write_text("#!/bin/sh\necho 'Valkey server v=8.1.0 sha=00000000:0'\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == (str(server), "8.1.0")
    older = tmp_path / "redis-server"
    older.write_text("#!/bin/sh\necho 'Redis server v=7.0.15 sha=00000000:0'\n")
    older.chmod(0o755)
    assert find_server() == (str(older), "7.0.15")
    assert find_server("valkey-server") == find_server(str(server)) == (str(server), "8.1.0")


def test_a_chosen_server_that_is_not_there_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match=r"valkey-server was not found; correct OCTOLLM_REDIS_SERVER"):
        find_server("valkey-server")


def test_two_stacks_never_take_the_same_port():
    with Ports() as one, Ports() as two:
        taken = {one.take() for _ in range(20)}
        port = one.take()
        assert not two.take_exactly(port)
        assert two.take(port) not in taken | {port}
    with Ports() as three:
        assert three.take_exactly(port)


@pytest.mark.parametrize(("first", "reserved"), [(32768, True), (20_005, False), (1024, False)])
def test_a_port_is_none_that_the_kernel_hands_to_connections_where_there_are_others(
    tmp_path: Path, monkeypatch, first: int, *, reserved: bool
):
    (tmp_path / "range").write_text(f"{first}\t60999\n")
    monkeypatch.setattr("octollm.devstack.embedded.ports._HANDED_OUT", tmp_path / "range")
    with Ports() as ports:
        assert all(20_000 <= ports.take() < first for _ in range(20)) is reserved
