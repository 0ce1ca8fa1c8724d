"""A connection to Postgres that is lost without a reset to either side is given up at its first missing answer."""

import asyncio

import asyncpg
import pytest

from octollm.database import pool as pool_module
from octollm.database.pool import open_pool, transaction
from octollm.errors import StoreUnavailableError
from tests.helpers.postgres_proxy import proxied
from tests.helpers.waiting import until

ANSWER_S = 2.0
"""Every further statement on a lost connection would take this long again: the limit below allows for none."""


@pytest.fixture
async def direct(dsn):
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE things (id int); INSERT INTO things VALUES (1)")
    yield connection
    await connection.close()


@pytest.fixture
async def way(dsn):
    async with proxied(dsn) as way:
        yield way


@pytest.fixture
def proxy(way):
    return way[0]


@pytest.fixture
async def pool(way, monkeypatch):
    monkeypatch.setattr(pool_module, "_ANSWER_S", ANSWER_S)
    monkeypatch.setattr(pool_module, "_IDLE", "500ms")
    _, through = way
    pool = await open_pool(through, 1)
    async with transaction(pool):
        pass  # the pool has a connection now
    yield pool
    pool.terminate()


@pytest.mark.parametrize("lost_before", ["BEGIN", "a statement", "COMMIT"])
async def test_a_half_open_connection_is_given_up_and_its_locks_are_released(direct, proxy, pool, lost_before):
    clock = asyncio.get_running_loop().time
    began = 0.0

    def lose(moment):
        nonlocal began
        if moment == lost_before:
            assert proxy.lose() == 1
            began = clock()

    async def work():
        lose("BEGIN")
        async with transaction(pool) as connection:
            await connection.execute("UPDATE things SET id = 2")
            lose("a statement")
            await connection.fetchval("UPDATE things SET id = 3 RETURNING id")
            lose("COMMIT")

    with pytest.raises(StoreUnavailableError):
        await work()
    assert clock() - began < 1.9 * ANSWER_S

    async def noticed():
        return proxy.unnoticed == 0

    await until(noticed)
    async with transaction(pool) as connection:  # a session that was never ended would still lock the row
        assert await connection.fetchval("UPDATE things SET id = 4 RETURNING id") == 4
