"""Connections to Postgres, and which of its errors are transient."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import asyncpg
import orjson

from octollm.errors import StatementTimeoutError, StoreUnavailableError

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
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.exceptions.CrashShutdownError,
    asyncpg.exceptions.CannotConnectNowError,  # starting up
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.exceptions.TransactionRollbackError,  # deadlock, serialisation
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # a failover that is not over
)
"""Errors that say nothing about what was asked: wait and ask again.

A client's TimeoutError and the errors that asyncpg raises itself may come from the question; `acquired` looks closer.
"""
CLIENT_ERRORS = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""Of a connection that is closed, and of wrong arguments."""

_ANSWER_S = 60.0
"""After how long without an answer a statement fails."""
_UNUSED_S = 30.0
"""After how long an unused connection is closed: it may be half-open, which only its next statement would find."""
_PROBE_S = 5.0
"""Within this time Postgres must answer a trivial statement, or it counts as unavailable."""
_IS_ACTIVE = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1"
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

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109  asyncpg
        """Make the connection fit for its next user; see asyncpg.

        A cancelled COMMIT leaves its transaction open. That is ordinary here, and asyncpg would log an error.
        """
        if self.is_in_transaction():
            await self.execute("ROLLBACK", timeout=timeout)
        await super().reset(timeout=timeout)

    async def _answer(self, answer: Awaitable[Result]) -> Result:
        try:
            return await answer
        except TimeoutError:
            self.terminate()
            raise


async def open_pool(dsn: str, size: int, answer_s: float | None = None, **session: str) -> Pool:
    """Connections that speak JSON as Python values.

    `session`: settings of Postgres, like `statement_timeout`.

    `answer_s`: after how long without an answer a statement fails and its connection is closed; None: 60 s.
    """
    return await asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        init=_speak_json,
        connection_class=_TerminatingConnection,
        timeout=10,
        max_inactive_connection_lifetime=_UNUSED_S,
        command_timeout=_ANSWER_S if answer_s is None else answer_s,
        server_settings={"application_name": "octollm", "idle_in_transaction_session_timeout": _IDLE, **session},
    )


@asynccontextmanager
async def acquired(pool: Pool, timeout_s: float | None = None) -> AsyncIterator[Connection]:
    """One connection; waiting for it takes at most `timeout_s` seconds.

    Other errors are raised as they are.

    Raises StoreUnavailableError for what will pass, and StatementTimeoutError if a statement takes too long although
    Postgres answers: it may take too long each time, so the caller has to bound its retries.
    """
    session: int | None = None
    try:
        async with pool.acquire(timeout=timeout_s) as connection:
            session = connection.get_server_pid()
            try:
                yield connection
            except CLIENT_ERRORS as error:
                if not _is_lost(connection):
                    raise
                if _followed_time_out(error):
                    raise TimeoutError from error
                raise _unavailable(error) from error
    except asyncpg.QueryCanceledError as error:
        raise StatementTimeoutError(f"Postgres: {error}") from error
    except TimeoutError as error:
        if session is not None and await _still_works(pool, session):
            raise StatementTimeoutError from error
        raise _unavailable(error) from error
    except TRANSIENT_POSTGRES_ERRORS as error:
        raise _unavailable(error) from error
    except CLIENT_ERRORS as error:
        if pool.is_closing():
            raise _unavailable(error) from error
        raise


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """One transaction. Raises what `acquired` raises."""
    async with acquired(pool) as connection, connection.transaction():
        yield connection


def _unavailable(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"Postgres: {str(error) or type(error).__name__}")


def _is_lost(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # the pool takes a closed connection back by itself
        return True


def _followed_time_out(error: BaseException) -> bool:
    """Whether this is what the rollback on a connection raised that was terminated because of a time-out."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, TimeoutError):
        cause = cause.__context__
    return cause is not None


async def _still_works(pool: Pool, session: int) -> bool:
    """Whether Postgres answers, and still works on the statement of a session that was given up.

    A session whose connection was lost is idle, and a server that hangs answers nothing.
    """
    try:
        async with asyncio.timeout(_PROBE_S), pool.acquire() as connection:
            return bool(await connection.fetchval(_IS_ACTIVE, session))
    except (*TRANSIENT_POSTGRES_ERRORS, *CLIENT_ERRORS):
        return False


async def _speak_json(connection: Connection) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=_encode, decoder=orjson.loads, schema="pg_catalog", format="text"
    )  # fmt: skip


def _encode(value: Any) -> str:  # noqa: ANN401  any JSON value
    return orjson.dumps(value).decode()
