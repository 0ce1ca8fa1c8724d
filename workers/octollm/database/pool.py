"""Connections to Postgres, and which of its errors mean "not now"."""

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


async def open_pool(dsn: str, size: int, **session: str) -> Pool:
    """Connections that speak JSON as Python values. `session`: settings of Postgres, like `statement_timeout`."""
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        init=_speak_json,
        timeout=10,
        command_timeout=60,
        server_settings={"application_name": "octollm", **session},
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
