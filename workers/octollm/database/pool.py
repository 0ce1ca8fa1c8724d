"""Connections to Postgres, and which of its errors are transient."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import orjson

from octollm.errors import StoreUnavailableError

# Quoted: only the stubs know the type parameters.
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


_UNUSED_S = 20.0
"""After how long an unused connection is closed: nobody would notice that it is half-open until its next use."""


async def open_pool(dsn: str, size: int, **session: str) -> Pool:
    """Connections that speak JSON as Python values. `session`: settings of Postgres, like `statement_timeout`."""
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        init=_speak_json,
        timeout=10,
        command_timeout=_ANSWER_S,
        max_inactive_connection_lifetime=_UNUSED_S,
        server_settings={"application_name": "octollm", "idle_in_transaction_session_timeout": _IDLE, **session},
    )


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One transaction. Raises StoreUnavailableError for what will pass; other errors as they are."""
    try:
        async with pool.acquire() as connection, connection.transaction():
            try:
                yield connection
            except TimeoutError:
                # The connection may be half-open. A rollback and the reset for the pool would each wait as long again.
                connection.terminate()
                raise
    except TRANSIENT_POSTGRES_ERRORS as error:
        raise StoreUnavailableError(f"Postgres: {str(error) or type(error).__name__}") from error


async def _speak_json(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=_encode, decoder=orjson.loads, schema="pg_catalog", format="text"
    )  # fmt: skip


def _encode(value: Any) -> str:  # noqa: ANN401  any JSON value
    return orjson.dumps(value).decode()
