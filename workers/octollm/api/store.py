"""Database connections, and the errors that callers get when the database fails.

A transaction is read-only unless it is asked for with `writing`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from octollm.database.migrate import newest_revision, revision_problem
from octollm.database.pool import CLIENT_ERRORS, TRANSIENT_POSTGRES_ERRORS, Connection, Pool, open_pool
from octollm.errors import StoreUnavailableError, TooSlowError

STATEMENT_S = 10.0
_REACH_S = 0.8
"""How long a request waits until Postgres answers at all; the answer to a query may take `STATEMENT_S`."""
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_log = structlog.get_logger(__name__)
_SCHEMA_MISMATCH = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)


class Store:
    """Postgres. Only `writing` may change anything."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._available = True
        self._trying = False

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Open a read-only transaction with one snapshot.

        Raises StoreUnavailableError within a second when the database is unavailable, hangs or is not migrated, and
        TooSlowError when a query exceeds the statement timeout. While the database is unavailable, one request at a
        time tries it, and the others fail at once.
        """
        async with self._transaction(_READ) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Connection]:
        """Open a transaction that may write, and commit it at the end. Raises what `reading` raises."""
        async with self._transaction(_WRITE) as connection:
            yield connection
            await connection.execute("COMMIT")

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[Connection]:
        if not self._available and self._trying:
            raise StoreUnavailableError("Postgres: unavailable")
        self._trying = True
        try:
            async with self._connection(begin) as connection:
                self._trying = False
                yield connection
        except asyncpg.QueryCanceledError as error:
            raise TooSlowError from error
        except _SCHEMA_MISMATCH as error:
            self._mark_unavailable(f"the database schema does not match revision {newest_revision()}: {error}")
            raise StoreUnavailableError(
                "the database is not migrated; start an orchestrator of this version, which migrates it"
            ) from error
        except (*TRANSIENT_POSTGRES_ERRORS, *CLIENT_ERRORS) as error:
            self._mark_unavailable(f"Postgres is unavailable: {str(error) or type(error).__name__}")
            raise StoreUnavailableError(f"Postgres: {str(error) or type(error).__name__}") from error
        finally:
            self._trying = False
        self._mark_available()

    @asynccontextmanager
    async def _connection(self, begin: str) -> AsyncIterator[Connection]:
        """Yield a connection in a transaction. Postgres has to begin the transaction within `_REACH_S`."""
        clock = asyncio.get_running_loop().time
        until = clock() + _REACH_S
        async with self._pool.acquire(timeout=_REACH_S) as connection:
            # asyncpg's own transactions take no timeout. Returning the connection to the pool ends this one.
            await connection.execute(begin, timeout=max(0.05, until - clock()))
            yield connection

    async def not_ready_reasons(self) -> list[str]:
        """Return why requests cannot be answered, one sentence each; an empty list means ready."""
        try:
            async with self.reading() as connection:
                problem = await revision_problem(connection)
        except (StoreUnavailableError, TooSlowError) as error:
            return [error.message]
        return [] if problem is None else [problem]

    def _mark_available(self) -> None:
        if not self._available:
            self._available = True
            _log.info("Postgres is available again")

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
        statement_s + 1,
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
