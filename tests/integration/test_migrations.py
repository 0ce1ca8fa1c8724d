"""The migration runner on a real PostgreSQL."""

import asyncio

import asyncpg
import pytest

from octollm.database import migrate as runner
from octollm.database.migrate import Migration, current_revision, load_migrations, migrate, revision_problem
from octollm.errors import StartError

ONE = Migration("9001", "9001_one.sql", "9001", "CREATE TABLE one (id int); INSERT INTO one VALUES (1);")
ADD = Migration("9002", "9002_add.sql", "9001", "ALTER TABLE one ADD COLUMN name text;")
REMOVE = Migration("9003", "9003_remove.sql", "9003", "ALTER TABLE one DROP COLUMN id;")


@pytest.fixture
async def empty(pool):
    """A database that has no record of migrations."""
    await pool.execute("DROP TABLE schema_migrations")
    return pool


async def test_many_processes_apply_each_migration_once(empty, dsn):
    await asyncio.gather(*(migrate(dsn, (ONE, ADD)) for _ in range(4)))
    assert await empty.fetchval("SELECT count(*) FROM one") == 1
    rows = await empty.fetch("SELECT revision, sha256 FROM schema_migrations ORDER BY revision")
    assert [tuple(row) for row in rows] == [("9001", ONE.sha256), ("9002", ADD.sha256)]


async def test_a_migration_that_fails_leaves_nothing_behind(empty, dsn):
    broken = Migration("9001", "9001_broken.sql", "9001", "CREATE TABLE one (id int); SELECT 1 FROM nowhere;")
    with pytest.raises(StartError, match='could not be migrated: relation "nowhere" does not exist'):
        await migrate(dsn, (broken,))
    assert await empty.fetchval("SELECT to_regclass('one')") is None
    await migrate(dsn, (ONE,))


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(empty, dsn):
    await migrate(dsn, (ONE,))
    with pytest.raises(StartError, match=r"9001_one\.sql was changed after it was applied"):
        await migrate(dsn, (ONE._replace(sql=f"{ONE.sql} "),))


async def test_older_code_goes_on_after_a_compatible_migration_only(empty, dsn):
    await migrate(dsn, (ONE, ADD))
    await migrate(dsn, (ONE,))
    await migrate(dsn, (ONE, ADD, REMOVE))
    with pytest.raises(StartError, match="at revision 9003, which needs a program of revision 9003 or newer"):
        await migrate(dsn, (ONE, ADD))


async def test_a_lock_that_another_session_holds_is_not_waited_for_long(empty, dsn, monkeypatch):
    monkeypatch.setattr(runner, "_LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(runner, "_PAUSE_S", 0)
    await migrate(dsn, (ONE,))
    async with empty.acquire() as other:
        async with other.transaction():
            await other.execute("SELECT * FROM one")
            with pytest.raises(StartError, match=r"9002_add\.sql did not get a lock"):
                await migrate(dsn, (ONE, ADD))
        await migrate(dsn, (ONE, ADD))


async def test_a_program_says_whether_it_can_use_the_database(pool):
    async with pool.acquire() as connection:
        assert await revision_problem(connection) is None
        assert await current_revision(connection) == load_migrations()[-1].revision
        await _record(connection, "9998", compatible_from="0001")
        assert await revision_problem(connection) is None
        await _record(connection, "9999", compatible_from="9999")
        assert "install a newer release" in (await revision_problem(connection) or "")
        await connection.execute("DROP TABLE schema_migrations")
        assert "start an orchestrator of this version" in (await revision_problem(connection) or "")


async def _record(connection: asyncpg.Connection, revision: str, compatible_from: str) -> None:
    await connection.execute(
        "INSERT INTO schema_migrations (revision, name, sha256, compatible_from) VALUES ($1, 'x', 'x', $2)",
        revision,
        compatible_from,
    )
