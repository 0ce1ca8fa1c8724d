"""Schedules on a real Postgres: each due time fires once, and missed times are made up for once."""

import asyncio
from datetime import UTC, datetime, timedelta
from unittest.mock import AsyncMock
from zoneinfo import ZoneInfo

import orjson
import pytest

from octollm.errors import StoreRefusedError, StoreUnavailableError
from octollm.orchestrator.scheduler import Scheduler
from octollm.resources import schemas_path
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import load_topology
from octollm.topology.schedules import Schedule
from tests.helpers.waiting import until

EARLY = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)


THREE = [
    "schedule:nightly:2026-03-29T01:00:00.000Z",  # 02:30 was skipped
    "schedule:nightly:2026-03-30T00:30:00.000Z",
    "schedule:nightly:2026-03-31T00:30:00.000Z",
]
"""What is due on the three days after EARLY."""


def nightly(cron="30 2 * * *") -> Schedule:
    return Schedule("nightly", "", cron, ZoneInfo("Europe/Berlin"), "default", b'{"goal":"g"}')


class Ingress:
    """Where submissions go."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.closed = False

    async def submit(self, tenant: str, body: bytes, key: str) -> None:
        if self.closed:
            raise StoreUnavailableError("Redis: away")
        await asyncio.sleep(0)
        self.keys.append(key)


async def test_a_new_one_begins_with_its_next_time_and_each_time_counts_once(pool):
    ingress = Ingress()
    first, second = (Scheduler([nightly()], pool, ingress.submit) for _ in range(2))
    assert await first.tick(EARLY) == 0
    for hours in range(72):
        now = EARLY + timedelta(hours=hours)
        await asyncio.gather(first.tick(now), second.tick(now), Scheduler([nightly()], pool, ingress.submit).tick(now))
    assert ingress.keys == THREE


async def test_what_was_missed_is_made_up_for_once_with_the_newest(pool):
    ingress = Ingress()
    await Scheduler([nightly()], pool, ingress.submit).tick(EARLY)
    await Scheduler([nightly()], pool, ingress.submit).tick(EARLY + timedelta(days=10))
    assert ingress.keys == ["schedule:nightly:2026-04-07T00:30:00.000Z"]


async def test_a_closed_ingress_is_made_up_for_and_a_crash_submits_under_the_same_key(pool):
    ingress = Ingress()
    scheduler = Scheduler([nightly()], pool, ingress.submit)
    await scheduler.tick(EARLY)
    ingress.closed = True
    due = EARLY + timedelta(days=1)
    assert await scheduler.tick(due) == 0
    ingress.closed = False

    async def crash(tenant: str, body: bytes, key: str) -> None:
        await ingress.submit(tenant, body, key)
        raise KeyError("between the submission and the commit")

    assert await Scheduler([nightly()], pool, crash).tick(due) == 0
    assert await scheduler.tick(due) == 1
    assert await scheduler.tick(due + timedelta(minutes=1)) == 0
    assert ingress.keys == ["schedule:nightly:2026-03-29T01:00:00.000Z"] * 2


async def test_one_that_was_changed_begins_with_its_next_time(pool):
    ingress = Ingress()
    await Scheduler([nightly()], pool, ingress.submit).tick(EARLY)
    changed = Scheduler([nightly("0 10 * * *")], pool, ingress.submit)
    assert await changed.tick(EARLY + timedelta(hours=1)) == 0  # 10:00 was this morning
    assert await changed.tick(EARLY + timedelta(days=1)) == 1
    assert ingress.keys == ["schedule:nightly:2026-03-29T08:00:00.000Z"]


async def test_one_that_was_disabled_goes_on_with_its_next_time(pool):
    ingress = Ingress()
    await Scheduler([nightly()], pool, ingress.submit).tick(EARLY)
    await Scheduler([], pool, ingress.submit).tick(EARLY + timedelta(hours=1))  # an orchestrator without it
    again = Scheduler([nightly()], pool, ingress.submit)
    assert await again.tick(EARLY + timedelta(days=10)) == 0
    assert await again.tick(EARLY + timedelta(days=11)) == 1
    assert ingress.keys == ["schedule:nightly:2026-04-08T00:30:00.000Z"]


async def test_a_due_time_in_the_far_future_is_replaced(pool):
    """As an orchestrator with a wrong clock, or somebody by hand, left it."""
    ingress = Ingress()
    scheduler = Scheduler([nightly()], pool, ingress.submit)
    await scheduler.tick(EARLY)
    await pool.execute("UPDATE schedules SET due = '2030-01-01T00:00:00Z'")
    for days in range(1, 4):
        await scheduler.tick(EARLY + timedelta(days=days))
    assert ingress.keys == THREE
    assert await pool.fetchval("SELECT submitted_at IS NOT NULL FROM schedules")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM schedules",
        "UPDATE schedules SET due = NULL",
        "UPDATE schedules SET cron = '0 0 1 1 *', due = '2026-01-01T00:00:00Z'",
        "UPDATE schedules SET zone = 'UTC'",
    ],
)
async def test_one_that_is_disabled_and_enabled_by_hand_loses_no_due_time(pool, change):
    """A person or another release changes the row while orchestrators wait for the next due time."""
    ingress = Ingress()
    schedulers = [Scheduler([nightly()], pool, ingress.submit) for _ in range(2)]
    for scheduler in schedulers:
        await scheduler.tick(EARLY)
    for days in range(1, 4):
        await pool.execute(change)
        await asyncio.gather(*(scheduler.tick(EARLY + timedelta(days=days)) for scheduler in schedulers))
    assert ingress.keys == THREE


async def test_a_deploy_that_disables_it_and_is_rolled_back_loses_no_due_time(pool):
    """Orchestrators that have it all the time go on, and new ones make up for nothing."""
    ingress = Ingress()
    old = Scheduler([nightly()], pool, ingress.submit)
    await old.tick(EARLY)
    for days in range(1, 4):
        now = EARLY + timedelta(days=days)
        await Scheduler([], pool, ingress.submit).tick(now - timedelta(hours=20))
        new = Scheduler([nightly()], pool, ingress.submit)
        if days != 2:  # that time nobody has stored it again when it is due
            assert await new.tick(now - timedelta(hours=19)) == 0
        await asyncio.gather(new.tick(now), old.tick(now)) if days != 2 else await old.tick(now)
    assert ingress.keys == THREE


async def test_one_that_cannot_be_submitted_stops_no_other(pool):
    ingress = Ingress()

    async def submit(tenant: str, body: bytes, key: str) -> None:
        if ":nightly:" in key:
            raise StoreRefusedError("Redis: WRONGTYPE")
        await ingress.submit(tenant, body, key)

    other = Schedule("other", "", "30 2 * * *", ZoneInfo("UTC"), "default", b'{"goal":"g"}')
    scheduler = Scheduler([nightly(), other], pool, submit)
    await scheduler.tick(EARLY)
    assert await scheduler.tick(EARLY + timedelta(days=1)) == 1
    assert ingress.keys == ["schedule:other:2026-03-29T02:30:00.000Z"]


async def test_the_databases_clock_decides_and_not_this_processs(pool, monkeypatch):
    ingress = Ingress()
    scheduler = Scheduler([nightly("* * * * *")], pool, ingress.submit)
    monkeypatch.setattr("octollm.orchestrator.scheduler.datetime", None)
    scheduler.tick = seen = AsyncMock()  # type: ignore[method-assign]
    await scheduler.run()
    ((now,), _) = seen.await_args_list[0]
    assert now == await pool.fetchval("SELECT least($1, clock_timestamp())", now)


async def test_the_orchestrator_puts_it_on_the_tenants_ingest_stream(
    redis_server, client, dsn, pool, tmp_path, monkeypatch
):
    (tmp_path / "schedules.yaml").write_text(
        "version: 1\nschedules:\n  yearly: {description: d, cron: 0 0 1 1 *, zone: UTC, tenant: default,"
        " submission: {goal: happy new year, kind: note, input: {text: hello}}}\n"
    )
    await pool.execute("INSERT INTO schedules VALUES ('yearly', '0 0 1 1 *', 'UTC', '2020-01-01T00:00:00Z', NULL)")
    await client.ping()
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_SCHEDULES_FILE", str(tmp_path / "schedules.yaml"))
    settings = load_settings()
    topology = load_topology(topology_path(settings), schemas_path())
    stop = asyncio.Event()
    runs = [
        asyncio.create_task(run_roles(["orchestrator"], settings, topology, concurrency=None, stop=stop))
        for _ in range(2)
    ]
    try:

        async def submitted():
            return await client.xlen("ingest:default") > 0

        await until(submitted)
    finally:
        stop.set()
        await asyncio.gather(*runs)
    ((_, fields),) = await client.xrange("ingest:default")
    year = datetime.now(UTC).year
    assert fields[b"idempotency_key"].decode() == f"schedule:yearly:{year}-01-01T00:00:00.000Z"
    assert orjson.loads(fields[b"body"])["goal"] == "happy new year"
