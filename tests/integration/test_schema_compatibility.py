"""Queries of earlier releases work on the newest schema, so that a cluster can be upgraded process by process."""

import json

from octollm.database.migrate import load_migrations, newest_revision
from tests.compat.record import FOLDER, describe, problems

RECORDED = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in FOLDER.glob("*.json")}


async def test_this_releases_queries_are_recorded(pool):
    async with pool.acquire() as connection:
        assert RECORDED.get(newest_revision()) == await describe(connection), "run: python -m tests.compat.record"


async def test_every_release_that_may_still_run_works_on_the_newest_schema(pool):
    oldest = load_migrations()[-1].compatible_from
    assert min(RECORDED) >= oldest, f"delete the records before {oldest}: no such release may run any longer"
    for revision, recorded in RECORDED.items():
        async with pool.acquire() as connection:
            assert await problems(connection, recorded) == [], f"release of revision {revision}"


async def test_a_change_that_breaks_a_release_is_found(pool):
    recorded = RECORDED[newest_revision()]
    async with pool.acquire() as connection:
        await connection.execute(
            "ALTER TABLE runs RENAME COLUMN plan TO plans;"
            "ALTER TABLE schedules ALTER COLUMN cron TYPE varchar;"
            "ALTER TABLE outputs ADD COLUMN media text NOT NULL DEFAULT ''"
        )
        found = "\n".join(await problems(connection, recorded))
    for problem in ("column runs.plan does not exist", "schedules", "outputs.media is new and must be nullable"):
        assert problem in found
