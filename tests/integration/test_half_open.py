"""A connection to Postgres that is lost without a word is given up with its first statement that gets no answer."""

import asyncio
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from octollm.database import pool as pool_module
from octollm.database.pool import open_pool, transaction
from octollm.errors import StoreUnavailableError
from tests.faults.proxy import Proxy
from tests.helpers.waiting import until


async def test_a_half_open_connection_is_given_up_and_its_locks_are_released(dsn, monkeypatch):
    monkeypatch.setattr(pool_module, "_ANSWER_S", 2.0)
    monkeypatch.setattr(pool_module, "_IDLE", "500ms")
    parts = urlsplit(dsn)
    socket_folder = parse_qs(parts.query).get("host")
    way = Proxy(f"{socket_folder[0]}/.s.PGSQL.5432" if socket_folder else (str(parts.hostname), parts.port or 5432))
    await way.start()
    through = parts._replace(netloc=f"{parts.username}@127.0.0.1:{way.port}", query="").geturl()
    pool = await open_pool(through, 1)
    direct = await asyncpg.connect(dsn)
    began = 0.0

    async def lose_in_transaction() -> None:
        nonlocal began
        async with transaction(pool) as connection:
            await connection.execute("UPDATE things SET id = 2")
            assert way.lose() == 1
            began = asyncio.get_running_loop().time()
            await connection.execute("UPDATE things SET id = 3")

    try:
        await direct.execute("CREATE TABLE things (id int); INSERT INTO things VALUES (1)")
        with pytest.raises(StoreUnavailableError):
            await lose_in_transaction()
        assert asyncio.get_running_loop().time() - began < 3.5
        await until(lambda: _noticed(way))
        async with transaction(pool) as connection:  # one that was lost and never closed still has the row
            assert await connection.fetchval("UPDATE things SET id = 4 RETURNING id") == 4
    finally:
        pool.terminate()
        await direct.close()
        await way.stop()


async def _noticed(way: Proxy) -> bool:
    return way.unnoticed == 0
