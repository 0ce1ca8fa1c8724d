"""Connections for reading, and what their errors mean to who asks. Nothing here can write."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from octollm.database.migrate import newest_revision, revision_problem
from octollm.database.pool import TRANSIENT_POSTGRES_ERRORS, Connection, Pool, open_pool
from octollm.errors import StoreUnavailableError, TooSlowError

STATEMENT_S = 10.0
_ACQUIRE_S = 5
_log = structlog.get_logger(__name__)
# Another shape than this program knows: older, or not migrated at all.
_SHAPE = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)


class Store:
    """Postgres, read only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._away = False

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """One moment of the database. Raises StoreUnavailableError for what will pass, TooSlowError past the time
        limit.
        """
        try:
            async with (
                self._pool.acquire(timeout=_ACQUIRE_S) as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield connection
        except asyncpg.QueryCanceledError as error:
            raise TooSlowError from error
        except _SHAPE as error:
            self._lost(f"the database has not the shape of revision {newest_revision()}: {error}")
            raise StoreUnavailableError(
                "start an orchestrator of this version: it migrates the database first"
            ) from error
        except TRANSIENT_POSTGRES_ERRORS as error:
            self._lost(f"Postgres cannot be used: {str(error) or type(error).__name__}")
            raise StoreUnavailableError(f"Postgres: {str(error) or type(error).__name__}") from error
        if self._away:
            self._away = False
            _log.info("Postgres can be used again")

    async def against(self) -> list[str]:
        """Reasons against being ready."""
        try:
            async with self.reading() as connection:
                problem = await revision_problem(connection)
        except (StoreUnavailableError, TooSlowError) as error:
            return [error.message]
        return [] if problem is None else [problem]

    def _lost(self, why: str) -> None:
        """Once per outage: every request would say the same."""
        if not self._away:
            self._away = True
            _log.warning(why)


@asynccontextmanager
async def open_store(dsn: str, pool_size: int, statement_s: float = STATEMENT_S) -> AsyncIterator[Store]:
    """A store whose connections are opened with the first question; `statement_s`: longest that one may take."""
    pool = await open_pool(
        dsn,
        pool_size,
        application_name="octollm-api",
        default_transaction_read_only="on",
        statement_timeout=f"{statement_s * 1000:.0f}ms",
        timezone="UTC",
        # Filters that are absent must cost nothing, which only a plan for the given values knows.
        plan_cache_mode="force_custom_plan",
    )
    try:
        yield Store(pool)
    finally:
        await pool.close()
