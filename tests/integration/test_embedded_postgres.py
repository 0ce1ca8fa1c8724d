"""The embedded Postgres: as root and as others, data that stays, and nothing touched outside its folder."""

import asyncio
import os
import pwd
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from octollm.devstack.embedded import launcher
from octollm.devstack.embedded.postgres import EmbeddedPostgres, binaries_dir
from octollm.errors import StartError

ANOTHER_USER = min(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid not in {0, os.geteuid()})
NOBODY_KNOWS = max(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid < 60000) + 1

ONE_START = """
import asyncio, os, sys
from pathlib import Path
import asyncpg
from octollm.devstack.embedded.postgres import EmbeddedPostgres

async def main():
    server = await EmbeddedPostgres.start(Path(sys.argv[1]), ephemeral=True)
    connection = await asyncpg.connect(server.dsn)
    print(os.geteuid(), await connection.fetchval("SELECT current_database()"))
    await connection.close()
    await server.stop()

asyncio.run(main())
"""


def permissions(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Mode and owner of a folder and of all its parents."""
    return {
        str(path): (path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.parents)
    }


def mode(folder: Path) -> int | None:
    """Permissions of a folder; None when it is gone."""
    return stat.S_IMODE(folder.stat().st_mode) if folder.exists() else None


async def query(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for a socket's name, however deep the checkout is."""
    with tempfile.TemporaryDirectory(prefix="octollm-", dir="/tmp") as folder:
        yield Path(folder)


async def test_data_stays_and_nothing_outside_changes(short_path: Path):
    before = permissions(short_path), permissions(binaries_dir()), pwd.getpwall()
    first = await EmbeddedPostgres.start(short_path / "pg", ephemeral=False)
    try:
        assert await query(first.dsn, "CREATE TABLE kept AS SELECT 7 AS n") is None
        assert await query(first.dsn, "SHOW listen_addresses") == ""
        assert await query(first.dsn, "SHOW fsync") == "on"
        assert mode(short_path / "pg" / "socket") == mode(short_path / "pg") == 0o700
        assert await query(first.dsn, "SELECT n FROM kept") == 7
    finally:
        await first.stop()
    assert first.child.exit_code == 0
    second = await EmbeddedPostgres.start(short_path / "pg", ephemeral=False)
    try:
        assert await query(second.dsn, "SELECT n FROM kept") == 7
    finally:
        await second.stop()
    assert not list((short_path / "pg" / "socket").iterdir())
    assert before == (permissions(short_path), permissions(binaries_dir()), pwd.getpwall())


@pytest.mark.parametrize("user", [ANOTHER_USER, NOBODY_KNOWS])
def test_it_runs_for_any_user(tmp_path: Path, user: int):
    """In a user namespace this process is that user, and root has no power over the server any longer."""
    command = [
        sys.executable,
        "-I",
        "-S",
        launcher.__file__,
        str(os.getpid()),
        str(int(signal.SIGKILL)),
        str(user),
    ]
    done = subprocess.run(
        [*command, sys.executable, "-c", ONE_START, str(tmp_path / "pg")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(user), "octollm"]


async def test_a_folder_too_long_for_a_socket(tmp_path: Path):
    deep = tmp_path / ("x" * 100)
    server = await EmbeddedPostgres.start(deep, ephemeral=True)
    socket_dir = Path(server.dsn.partition("?host=")[2])
    try:
        assert await query(server.dsn, "SELECT 1") == 1
        assert not socket_dir.is_relative_to(deep)
        assert mode(socket_dir) == 0o700
    finally:
        await server.stop()
    assert mode(socket_dir) is None


async def test_a_folder_with_unusual_signs(tmp_path: Path):
    server = await EmbeddedPostgres.start(tmp_path / "a, b%20 'c'", ephemeral=True)
    try:
        assert await query(server.dsn, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_its_sudden_end_is_reported_and_its_data_recovers(tmp_path: Path):
    server = await EmbeddedPostgres.start(tmp_path, ephemeral=False)
    await query(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    server.child.send(signal.SIGKILL)
    await server.child.wait()
    assert "Postgres was ended by SIGKILL; the end of its log" in str(server.child.ended())
    await server.stop()
    again = await EmbeddedPostgres.start(tmp_path, ephemeral=False)
    try:
        assert await query(again.dsn, "SELECT n FROM kept") == 7
    finally:
        await again.stop()


async def test_data_of_another_version_is_refused(tmp_path: Path):
    data = tmp_path / "pgdata"
    data.mkdir()
    (data / "PG_VERSION").write_text("14\n")
    with pytest.raises(StartError, match=r"made by PostgreSQL 14 .*--data .*OCTOLLM_POSTGRES_DSN"):
        await EmbeddedPostgres.start(tmp_path, ephemeral=False)


async def test_a_folder_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "pgdata").mkdir()
    with pytest.raises(StartError, match="is not a Postgres data directory"):
        await EmbeddedPostgres.start(tmp_path, ephemeral=False)


async def test_a_start_that_is_cut_off_leaves_nothing_half_made(tmp_path: Path):
    start = asyncio.create_task(EmbeddedPostgres.start(tmp_path, ephemeral=True))
    await asyncio.sleep(0)  # into the start of initdb
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not (tmp_path / "pgdata").exists()
    (tmp_path / "pgdata.new").mkdir(exist_ok=True)
    (tmp_path / "pgdata.new" / "half").touch()  # as a start leaves it that was killed
    server = await EmbeddedPostgres.start(tmp_path, ephemeral=True)
    await server.stop()
    assert not (tmp_path / "pgdata.new").exists()
