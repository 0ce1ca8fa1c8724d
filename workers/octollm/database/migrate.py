"""Migrations: numbered SQL files, applied in order by the first process that needs them.

The files are in `database/migrations/`.

`schema_migrations` records each applied file. A file is never changed after a release. Schema changes are made in two
releases (expand and contract), so that processes of the previous release keep working while a cluster is upgraded:
first add what the new code needs, later remove what no supported release uses. New columns must be nullable, because
older releases insert rows without them.

The first line of each file, `-- compatible-from: <revision>`, names the oldest revision whose code works with the
schema after this file. Code that finds a revision newer than its own uses the database only if that header allows it.
"""

import asyncio
import hashlib
import re
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

import asyncpg
import structlog

from octollm.database.pool import TRANSIENT_POSTGRES_ERRORS, Connection
from octollm.errors import StartError

_FILE = re.compile(r"(\d{4})_\w+\.sql")
_COMPATIBLE_FROM = re.compile(r"-- compatible-from: (\d{4})\n")
# Key of the advisory lock under which one process at a time applies a migration; any number no other program uses.
_LOCK = 0x0C70_77A1
_LOCK_TIMEOUT_S = 5
_TRIES = 5
_PAUSE_S = 1.0
_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    revision text PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    compatible_from text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""
_log = structlog.get_logger(__name__)


class Migration(NamedTuple):
    """One SQL file."""

    revision: str
    """Four digits."""
    name: str
    """Name of the file."""
    compatible_from: str
    """Oldest revision whose code works with the schema after this file."""
    sql: str

    @property
    def sha256(self) -> str:
        """Digest of the file, to notice when an applied one was changed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class _Applied(NamedTuple):
    name: str
    sha256: str
    compatible_from: str


def load_migrations(folder: Traversable | None = None) -> tuple[Migration, ...]:
    """Read the migrations in order, by default those of this release.

    Raises StartError for a file name or header that does not follow the rules, or a revision that occurs twice.
    """
    found: dict[str, Migration] = {}
    for file in (folder or resources.files("octollm.database") / "migrations").iterdir():
        text = file.read_text(encoding="utf-8")
        name, header = _FILE.fullmatch(file.name), _COMPATIBLE_FROM.match(text)
        if name is None or header is None or header[1] > name[1]:
            raise StartError(
                f"migration {file.name}: name it NNNN_words.sql and begin it with '-- compatible-from: NNNN', "
                "a revision that is not newer than its own"
            )
        if name[1] in found:
            raise StartError(f"migrations {found[name[1]].name} and {file.name} have the same revision")
        found[name[1]] = Migration(name[1], file.name, header[1], text)
    return tuple(found[revision] for revision in sorted(found))


def newest_revision() -> str:
    """Return the newest revision that this release knows: four digits."""
    return load_migrations()[-1].revision


async def current_revision(connection: Connection) -> str | None:
    """Return the newest revision applied to the database, or None if there is none."""
    return max(await _applied(connection), default=None)


async def revision_problem(connection: Connection) -> str | None:
    """Return why this release cannot use the database's revision, as a sentence, or None if it can."""
    known = load_migrations()
    applied = await _applied(connection)
    missing = [one.revision for one in known if one.revision not in applied]
    if missing:
        found = max(applied, default=None)
        return (
            f"the database is at revision {found}, this program needs {known[-1].revision}; "
            "start an orchestrator of this version: it migrates the database first"
        )
    return _incompatible(applied, known)


async def migrate(dsn: str, migrations: tuple[Migration, ...] | None = None) -> None:
    """Apply the migrations that are missing, each in one transaction.

    Many processes may call this at the same time.

    Raises StartError if a migration fails, cannot get a table's lock, was changed after it was applied, or if the
    database is at a newer revision that this release is not compatible with. Raises the errors of asyncpg and OSError
    if Postgres cannot be reached.
    """
    known = migrations or load_migrations()
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        for migration in _pending(await _applied(connection), known):
            await _apply(connection, migration, known)
    except TRANSIENT_POSTGRES_ERRORS:
        raise
    except asyncpg.PostgresError as error:
        raise StartError(f"the database could not be migrated: {error}") from error
    finally:
        await connection.close()


async def _apply(connection: Connection, migration: Migration, known: tuple[Migration, ...]) -> None:
    """Retry while another session holds a lock.

    Waiting longer would make every later query on the table wait too.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            async with connection.transaction():
                # Before the lock timeout is set: this lock is held for as long as another process migrates.
                await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
                await connection.execute(_CREATE_TABLE)
                if migration not in _pending(await _applied(connection), known):
                    return
                await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_S * 1000:.0f}")
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (revision, name, sha256, compatible_from) VALUES ($1, $2, $3, $4)",
                    migration.revision,
                    migration.name,
                    migration.sha256,
                    migration.compatible_from,
                )
        except asyncpg.LockNotAvailableError as error:
            if attempt == _TRIES:
                raise StartError(
                    f"migration {migration.name} did not get a lock within {_LOCK_TIMEOUT_S} s, {_TRIES} times; "
                    "end the long transactions that pg_stat_activity shows, then start again"
                ) from error
            _log.warning("a migration waits for a lock", migration=migration.name, attempt=attempt)
            await asyncio.sleep(_PAUSE_S)
        else:
            _log.info("migration applied", migration=migration.name)
            return


def _pending(applied: dict[str, _Applied], known: tuple[Migration, ...]) -> list[Migration]:
    """Return what is to be applied. Raises StartError if what is applied does not fit."""
    problem = _incompatible(applied, known)
    if problem is not None:
        raise StartError(problem)
    return [one for one in known if one.revision not in applied]


def _incompatible(applied: dict[str, _Applied], known: tuple[Migration, ...]) -> str | None:
    for one in known:
        if one.revision in applied and applied[one.revision].sha256 != one.sha256:
            return (
                f"migration {one.name} was changed after it was applied to this database; "
                "restore the file and put the change into a new migration"
            )
    newest = known[-1].revision
    unknown = {revision: row for revision, row in applied.items() if revision > newest}
    needed = max((row.compatible_from for row in unknown.values()), default=newest)
    if needed > newest:
        return (
            f"the database is at revision {max(unknown)}, which needs a program of revision {needed} or newer; "
            f"this one knows {newest}: install a newer release"
        )
    return None


async def _applied(connection: Connection) -> dict[str, _Applied]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return {}
    rows = await connection.fetch("SELECT revision, name, sha256, compatible_from FROM schema_migrations")
    return {row["revision"]: _Applied(row["name"], row["sha256"], row["compatible_from"]) for row in rows}
