"""The Python roles together on a real Redis and a real Postgres: from an admitted message to the stored result."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import orjson
import pytest
import redis.asyncio

from octollm.contracts import TaskCancel, write
from octollm.contracts.ids import utc_now
from octollm.protocol.handoff import Completion, Handoff, LeaseStatus
from octollm.protocol.operations import Lease, StepRun
from octollm.resources import schemas_path
from octollm.runtime.roles import python_roles
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import Settings, load_settings
from octollm.topology import load_topology
from tests.helpers.consumers import KEYS
from tests.helpers.tasks import ended, put
from tests.helpers.waiting import until


@pytest.fixture
def settings(redis_server, dsn, monkeypatch) -> Settings:
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_ORCHESTRATOR_RECONCILE_INTERVAL_S", "1")
    return load_settings()


@pytest.fixture
async def roles(settings) -> AsyncIterator[asyncio.Task[None]]:
    """All Python roles, running."""
    topology = load_topology(topology_path(settings), schemas_path())
    stop = asyncio.Event()
    work = asyncio.create_task(run_roles(list(python_roles(topology)), settings, topology, concurrency=None, stop=stop))
    try:
        yield work
    finally:
        stop.set()
        await asyncio.wait_for(work, 120)


async def test_a_note_is_redacted_judged_and_stored(client, dsn, roles):
    task = await put(client, kind="note", input={"text": "write to ada@example.org"})
    status = await ended(client, task)
    assert status["state"] == "succeeded"
    answer = orjson.loads(status["result"])["answer"]
    assert answer == {"text": "write to [email]", "redactions": {"email": 1}}
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval("SELECT state FROM tasks WHERE id = $1", task) == "succeeded"
        assert await connection.fetchval("SELECT count(*) FROM attempts WHERE task = $1", task) == 3
    finally:
        await connection.close()
    assert await client.hlen(KEYS.in_flight) == 0
    events = [orjson.loads(fields[b"body"])["event"] for _, fields in await client.xrange(KEYS.events)]
    assert events[0] == "accepted"
    assert events[-1] == "finished"


async def test_a_note_with_a_secret_is_failed_by_the_judge(client, roles):
    secret = "AKIA" + "ABCDEFGH" * 2
    task = await put(client, kind="note", input={"text": f"key: {secret}"})
    status = await ended(client, task)
    assert (status["state"], status["reason"]) == ("failed", "judged")
    assert "aws_access_key" in status["detail"]
    assert secret not in status["detail"]
    assert secret not in status["result"]


async def test_an_unreadable_task_is_a_stored_dead_letter_and_the_next_one_goes_on(client, dsn, roles):
    await client.xadd("{l0}:tasks:normal", {"type": "task.submitted.v1", "id": "nonsense", "body": "{"})
    task = await put(client, kind="note", input={"text": "fine"})
    assert (await ended(client, task))["state"] == "succeeded"
    connection = await asyncpg.connect(dsn)
    try:

        async def stored() -> bool:
            return await connection.fetchval("SELECT reason FROM dead_letters WHERE original = '{'") == "malformed"

        await until(stored)
    finally:
        await connection.close()

    async def acknowledged() -> bool:
        return await client.xlen(KEYS.dead) == 0

    await until(acknowledged)


async def test_a_hundred_tasks_at_once(client, dsn, roles):
    tasks = [await put(client, kind="note", input={"text": f"number {number}"}) for number in range(100)]
    states = [(await ended(client, task))["state"] for task in tasks]
    assert states == ["succeeded"] * 100


async def test_an_expired_task_says_so(client, roles):
    # Nobody works on executor steps here.
    task = await put(client, kind="code", input={"code": "x = 1", "tests": "import solution"}, deadline_s=1)
    status = await ended(client, task)
    assert (status["state"], status["reason"]) == ("expired", "deadline")


async def test_a_cancelled_task_says_so_at_once_and_its_step_is_run_by_nobody(client, roles):
    # Nobody works on executor steps here, so that the step waits.
    task = await put(client, kind="code", input={"code": "x = 1", "tests": "import solution"})
    stream = "{l0}:arm.executor:normal"
    await until(lambda: waits(client, stream))
    status = await client.hgetall(KEYS.status(task))
    assert [one["step"] for one in orjson.loads(status[b"open"])] == ["run"]
    body = write(TaskCancel(task=task, tenant="default", requested_at=utc_now(), detail="changed my plan"))
    message: dict[str, str | bytes] = {
        "type": "task.cancel.v1",
        "id": task,
        "tenant": "default",
        "traceparent": "",
        "body": body,
    }
    ingress = Handoff(client, "l0", "executor", "ingress")
    assert await ingress.cancel(task, "other", 1, 60, message) == ("other_tenant", "")
    assert await ingress.cancel(task, "default", 1, 60, message) == ("accepted", "running")
    end = await ended(client, task)
    assert (end["state"], end["reason"], end["detail"]) == ("cancelled", "requested", "changed my plan")
    assert "open" not in end
    assert await ingress.cancel(task, "default", 1, 60, message) == ("ended", "cancelled")
    # A worker that reads the step now acknowledges it without running it.
    await client.xgroup_create(stream, "executor", "0")
    ((_, ((entry, fields),)),) = await client.xreadgroup("executor", "ingress", {stream: ">"})
    field = fields[b"id"].decode().rpartition(".")[0]
    held = Lease(stream, entry.decode(), 1, field, StepRun(KEYS.ended_runs, f"{task}.1", "default"))
    assert await ingress.complete([Completion(held, ())]) == [LeaseStatus.RUN_ENDED]
    assert (await client.xlen(stream), await client.hlen(KEYS.in_flight)) == (0, 0)


async def waits(client: redis.asyncio.Redis, stream: str) -> bool:
    return bool(await client.exists(stream)) and bool(await client.xlen(stream))


async def test_a_flushed_redis_heals(client, dsn, roles):
    task = await put(client, kind="code", input={"code": "x = 1", "tests": "import solution"})

    await until(lambda: waits(client, "{l0}:arm.executor:normal"))
    await client.flushall()
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("UPDATE steps SET sent_at = now() - interval '1 h' WHERE task = $1", task)
    finally:
        await connection.close()
    await until(lambda: waits(client, "{l0}:arm.executor:normal"))
    ((_, fields),) = await client.xrange("{l0}:arm.executor:normal")
    assert orjson.loads(fields[b"body"])["attempt"] == 2

    async def reported() -> bool:
        return await client.hget(KEYS.status(task), "state") == b"running"

    await until(reported)  # the step is sent before its task's status is
