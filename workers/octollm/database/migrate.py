"""Brings a database to the newest shape. Safe to run from many processes at once."""

import importlib
from importlib import resources

import asyncpg


def newest() -> str:
    """The newest revision this code knows: they are numbered, and each lies in a file named after its number."""
    names = (file.name for file in resources.files("octollm.database.migrations.versions").iterdir())
    return max(name[1:5] for name in names if name.startswith("m") and name.endswith(".py"))


async def migrate(dsn: str) -> None:
    """Run what is missing. Raises StartError with the database's own sentence, and what it raises when it is away."""
    if await _revision(dsn) != newest():
        await importlib.import_module("octollm.database.upgrade").upgrade(dsn)


async def _revision(dsn: str) -> str | None:
    """Where the database is; None: nothing was ever made in it."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
            return None
        found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.PostgresError:
        return None  # the upgrade meets it again, and says it in a sentence
    else:
        return found
    finally:
        await connection.close()
