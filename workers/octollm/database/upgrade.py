"""Runs the migrations with alembic, which takes a second to load: only where something is missing."""

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from octollm.errors import StartError

# Any number that no other program uses: the advisory lock under which one process migrates.
_LOCK = 0x0C70_77A1


async def upgrade(dsn: str) -> None:
    """To the newest shape, one process at a time. Raises StartError with the database's own sentence, and what it
    raises when it is away.
    """
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn, timeout=10))
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade)
            await connection.commit()
    except SQLAlchemyError as error:
        raise StartError(f"the database could not be migrated: {str(error).splitlines()[0]}") from error
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
    connection.commit()
    try:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "octollm.database:migrations")
    return config
