"""Connections to Postgres, and which of its errors are transient."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import asyncpg
import orjson

from octollm.errors import StoreUnavailableError

# Quoted: only the stubs know the type parameters.
if TYPE_CHECKING:
    _AsyncpgConnection = asyncpg.Connection[asyncpg.Record]
else:
    _AsyncpgConnection = asyncpg.Connection
Result = TypeVar("Result")
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
TRANSIENT_POSTGRES_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.OperatorInterventionError,  # shutting down, starting up
    asyncpg.exceptions.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.exceptions.TransactionRollbackError,  # deadlock, serialisation
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # a failover that is not over
)
"""Errors that say nothing about what was asked: wait and ask again."""

_ANSWER_S = 60.0
"""After how long without an answer a statement fails."""
_IDLE = "60s"
"""After how long Postgres ends a transaction whose client has gone silent, so that its locks block nobody."""


class _TerminatingConnection(_AsyncpgConnection):
    """A connection that is terminated by its first missing answer.

    It may be half-open: then the rollback, the COMMIT and the reset for the pool would each wait as long again. This
    also covers the BEGIN and COMMIT that asyncpg sends by itself.
    """

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ANN401, ASYNC109  asyncpg
        """Run a command; see asyncpg."""
        return await self._answer(super().execute(query, *args, timeout=timeout))

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  asyncpg's own overloads
        """Return all rows; see asyncpg."""
        return await self._answer(super().fetch(query, *args, **options))

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  as above
        """Return the first row; see asyncpg."""
        return await self._answer(super().fetchrow(query, *args, **options))

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401  as above
        """Return a value of the first row; see asyncpg."""
        return await self._answer(super().fetchval(query, *args, **options))

    async def _answer(self, answer: Awaitable[Result]) -> Result:
        try:
            return await answer
        except TimeoutError:
            self.terminate()
            raise


async def open_pool(dsn: str, size: int, answer_s: float | None = None, **session: str) -> Pool:
    """Connections that speak JSON as Python values. `session`: settings of Postgres, like `statement_timeout`.

    `answer_s`: after how long without an answer a statement fails and its connection is closed; None: 60 s.
    """
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        init=_speak_json,
        connection_class=_TerminatingConnection,
        timeout=10,
        command_timeout=_ANSWER_S if answer_s is None else answer_s,
        server_settings={"application_name": "octollm", "idle_in_transaction_session_timeout": _IDLE, **session},
    )


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One transaction. Raises StoreUnavailableError for what will pass; other errors as they are."""
    try:
        async with pool.acquire() as connection, connection.transaction():
            yield connection
    except TRANSIENT_POSTGRES_ERRORS as error:
        raise StoreUnavailableError(f"Postgres: {str(error) or type(error).__name__}") from error


async def _speak_json(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=_encode, decoder=orjson.loads, schema="pg_catalog", format="text"
    )  # fmt: skip


def _encode(value: Any) -> str:  # noqa: ANN401  any JSON value
    return orjson.dumps(value).decode()
