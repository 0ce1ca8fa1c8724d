"""What an error of Postgres says: the store is unavailable, or a statement takes too long, or the code is wrong."""

import asyncio

import asyncpg
import pytest

from octollm.contracts import StepDone, StepRequested, read
from octollm.database import pool as pools
from octollm.database.pool import open_pool, transaction
from octollm.errors import StatementTimeoutError, StoreUnavailableError
from octollm.protocol.handoff import Entry
from octollm.protocol.operations import Publish
from octollm.steps.runner import StepRunner
from tests.helpers.consumers import KEYS, fields, judge, keep_nothing, step

_SLOW = "SELECT pg_sleep(60)"


@pytest.fixture
async def impatient(dsn):
    """Connections whose statements may take a second, by the rule of the server."""
    made = await open_pool(dsn, 2, statement_timeout="1s")
    yield made
    await made.close()


async def test_a_statement_that_exceeds_the_servers_limit_is_not_an_unavailable_store(impatient):
    with pytest.raises(StatementTimeoutError, match="statement timeout"):
        async with transaction(impatient) as connection:
            await connection.execute(_SLOW)
    async with transaction(impatient) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_statement_that_exceeds_the_clients_limit_is_not_an_unavailable_store(pool):
    with pytest.raises(StatementTimeoutError):
        async with transaction(pool) as connection:
            await connection.execute(_SLOW, timeout=0.5)


async def test_a_server_that_answers_nobody_is_unavailable(pool, monkeypatch):
    async def hangs(*_):
        return False

    monkeypatch.setattr(pools, "_still_works", hangs)
    with pytest.raises(StoreUnavailableError):
        async with transaction(pool) as connection:
            await connection.execute(_SLOW, timeout=0.5)


async def test_wrong_arguments_are_a_bug_and_nothing_that_passes(pool):
    with pytest.raises(asyncpg.InterfaceError):
        async with transaction(pool) as connection:
            await connection.fetchval("SELECT $1::int", 1, 2)
    with pytest.raises(asyncpg.DataError):
        async with transaction(pool) as connection:
            await connection.fetchval("SELECT $1::int", "text")


async def closed_by_the_client(pool):
    async with transaction(pool) as connection:
        connection.terminate()
        await connection.execute("SELECT 1")


async def closed_by_the_server(pool):
    async with transaction(pool) as connection:
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        await connection.execute("SELECT 1")


@pytest.mark.parametrize("use", [closed_by_the_client, closed_by_the_server])
async def test_a_connection_that_was_closed_is_an_unavailable_store(pool, use):
    with pytest.raises(StoreUnavailableError):
        await use(pool)


async def test_a_pool_that_closes_is_an_unavailable_store(dsn):
    made = await open_pool(dsn, 1)
    await made.close()
    with pytest.raises(StoreUnavailableError):
        async with transaction(made):
            pass


async def test_an_arm_whose_statement_always_takes_too_long_ends_with_that_cause(impatient):
    async def work(_step: StepRequested):
        async with transaction(impatient) as connection:
            await connection.execute(_SLOW)
        return {}

    entry = Entry(
        KEYS.stream(judge()), "1-0", 1, {name.encode(): as_bytes(value) for name, value in fields(step()).items()}
    )
    result = await StepRunner(judge(), KEYS, "w", work, keep_nothing)(entry)
    publish = next(one for one in result.operations if isinstance(one, Publish))
    done = read(StepDone, as_bytes(publish.fields["body"])).root
    assert (done.outcome, done.error.code) == ("retrying", "statement_timeout")


def as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


async def test_a_transaction_that_a_cancelled_commit_leaves_open_is_rolled_back_without_an_error(dsn):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    pool = await open_pool(dsn, 1)
    async with pool.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute("CREATE TABLE left_open (id integer)")
    async with pool.acquire() as connection:
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT to_regclass('left_open')") is None
    await pool.close()
    assert reported == []
