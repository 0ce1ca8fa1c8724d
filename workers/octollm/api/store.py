"""Read-only database connections, and the errors that callers get when the database fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from octollm.database.migrate import newest_revision, revision_problem
from octollm.database.pool import Connection, Pool, acquired, open_pool
from octollm.errors import StatementTimeoutError, StoreUnavailableError, TooSlowError

STATEMENT_S = 10.0
_ACQUIRE_S = 5
_log = structlog.get_logger(__name__)
_SCHEMA_MISMATCH = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)


class Store:
    """Postgres, read-only."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._available = True

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Open a read-only transaction with one snapshot.

        Raises StoreUnavailableError when the database is unavailable or not migrated, TooSlowError when a query
        exceeds the statement timeout.
        """
        try:
            async with (
                acquired(self._pool, _ACQUIRE_S) as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield connection
        except StatementTimeoutError as error:
            raise TooSlowError from error
        except _SCHEMA_MISMATCH as error:
            self._mark_unavailable(f"the database schema does not match revision {newest_revision()}: {error}")
            raise StoreUnavailableError(
                "the database is not migrated; start an orchestrator of this version, which migrates it"
            ) from error
        except StoreUnavailableError as error:
            self._mark_unavailable(f"{error.message}: it is unavailable")
            raise
        if not self._available:
            self._available = True
            _log.info("Postgres is available again")

    async def not_ready_reasons(self) -> list[str]:
        """Return why requests cannot be answered, one sentence each; an empty list means ready."""
        try:
            async with self.reading() as connection:
                problem = await revision_problem(connection)
        except (StoreUnavailableError, TooSlowError) as error:
            return [error.message]
        return [] if problem is None else [problem]

    def _mark_unavailable(self, reason: str) -> None:
        """Log the reason once per outage, not once per request."""
        if self._available:
            self._available = False
            _log.warning(reason)


@asynccontextmanager
async def open_store(dsn: str, pool_size: int, statement_s: float = STATEMENT_S) -> AsyncIterator[Store]:
    """Open a store. It connects to `dsn` with the first query.

    `pool_size`: maximum number of connections; `statement_s`: timeout of one statement.
    """
    pool = await open_pool(
        dsn,
        pool_size,
        application_name="octollm-api",
        default_transaction_read_only="on",
        statement_timeout=f"{statement_s * 1000:.0f}ms",
        timezone="UTC",
        # A generic plan would not skip the conditions of absent filters.
        plan_cache_mode="force_custom_plan",
    )
    try:
        yield Store(pool)
    finally:
        await pool.close()
