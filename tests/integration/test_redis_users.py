"""The ACL users of `deploy/redis/users.acl` can do their work, and nothing else."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import redis.asyncio
from redis.exceptions import NoPermissionError

from octollm.contracts.ids import as_text
from octollm.devstack.embedded.ports import Ports
from octollm.protocol.kinds import published_version
from octollm.resources import schemas_path
from octollm.runtime.roles import python_roles
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import load_topology
from tests.helpers.waiting import TIMEOUT_S, until

ROOT = Path(__file__).parents[2]
USERS = [line.split() for line in (ROOT / "deploy/redis/users.acl").read_text().splitlines()]
PROGRAMS = ["octollm-reflex", "octollm-executor", "octollm-worker"]
LOGIN = "for-this-test-only"

# Refused to each, and each does without: how Redis syncs, and naming the client library.
OPTIONAL = {b"config|get", b"client|setinfo"}
FORBIDDEN = [
    "CONFIG GET requirepass",
    "CONFIG SET maxmemory 1",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "SCAN 0",
    "EVAL return 0",
    "SCRIPT FLUSH",
    "FUNCTION LIST",
    "ACL LIST",
    "CLIENT LIST",
    "CLIENT KILL ID 1",
    "SHUTDOWN NOSAVE",
    "REPLICAOF NO ONE",
    "MONITOR",
    "SAVE",
    "SWAPDB 0 1",
    "RENAME {l0}:events {l0}:x",
    "MODULE LIST",
    "GET other",
    "SET other x",
    "PUBLISH other x",
]


def url_of(server_url: str, user: str) -> str:
    return server_url.replace("redis://", f"redis://{user}:{LOGIN}@")


@pytest.fixture
async def users(redis_server, client) -> str:
    """The server's URL, once its users are those of the file, each with a password."""
    for _, name, *rules in USERS:
        if name != "default":  # the fixture's own connections use it
            assert "resetpass" in rules  # the file itself opens nothing
            await client.execute_command("ACL", "SETUSER", name, *rules, f">{LOGIN}")
    await client.execute_command("ACL", "LOG", "RESET")
    return redis_server.url


@contextlib.contextmanager
def program(name: str, **environment: str) -> Iterator[None]:
    process = subprocess.Popen([ROOT / "target/release" / name], env={**os.environ, **environment})
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0


@pytest.fixture
async def stack(users, dsn, monkeypatch, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Every process as the user that the file has for it; a client of the reflex."""
    monkeypatch.setenv("OCTOLLM_REDIS_URL", url_of(users, "octollm-worker"))
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    settings, stop = load_settings(), asyncio.Event()
    topology = load_topology(topology_path(settings), schemas_path())
    with Ports() as ports:
        port = ports.take(0)
    reflex = {"OCTOLLM_REDIS_URL": url_of(users, "octollm-reflex"), "OCTOLLM_REFLEX_LISTEN": f"127.0.0.1:{port}"}
    executor = {
        "OCTOLLM_REDIS_URL": url_of(users, "octollm-executor"),
        "OCTOLLM_EXECUTOR_MIN_ISOLATION": "landlock",
        "OCTOLLM_EXECUTOR_WORKSPACE_DIR": str(tmp_path),
    }
    with program("octollm-reflex", **reflex), program("octollm-executor", **executor):
        roles = run_roles(list(python_roles(topology)), settings, topology, concurrency=None, stop=stop)
        work = asyncio.create_task(roles)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=TIMEOUT_S) as http:
            try:
                await until(lambda: is_ready(http))
                yield http
            finally:
                stop.set()
                await asyncio.wait_for(work, 120)


async def is_ready(http: httpx.AsyncClient) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await http.get("/readyz")).status_code == 200
    return False


async def state_of(http: httpx.AsyncClient, task: str) -> str | None:
    status = (await http.get(f"/v1/tasks/{task}")).json()
    return None if status["state"] in {"accepted", "running"} else str(status["state"])


async def test_every_process_works_as_its_user(users, client, stack):
    async def submit(**body: object) -> str:
        answer = await stack.post("/v1/tasks", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task"])

    note = await submit(goal="Keep it", kind="note", input={"text": "write to ada@example.org"})
    assert await until(lambda: state_of(stack, note)) == "succeeded"
    tests = "import solution\nassert solution.one() == 1\n"
    code = await submit(goal="Test it", kind="code", input={"code": "def one():\n    return 1\n", "tests": tests})
    assert await until(lambda: state_of(stack, code)) == "succeeded"
    tomorrow = as_text(datetime.now(UTC) + timedelta(days=1))
    later = await submit(goal="x", kind="note", input={"text": "x"}, not_before=tomorrow)
    assert (await stack.delete(f"/v1/tasks/{later}")).status_code in {200, 202}
    async with redis.asyncio.Redis.from_url(url_of(users, "octollm-producer")) as producer:
        await producer.xadd("ingest:default", {"body": b'{"goal": "x", "kind": "note", "input": {"text": "x"}}'})
    await until(lambda: is_empty(client, "ingest:default"))
    await until(lambda: published_version(client))
    refused = {entry[b"object"] for entry in await client.execute_command("ACL", "LOG")}
    assert refused <= OPTIONAL


async def is_empty(client: redis.asyncio.Redis, stream: str) -> bool:
    return await client.xlen(stream) == 0


@pytest.mark.parametrize("user", [*PROGRAMS, "octollm-producer"])
async def test_no_user_can_do_more(users, user):
    async with redis.asyncio.Redis.from_url(url_of(users, user)) as one:
        await one.ping()
        for command in FORBIDDEN:
            with pytest.raises(NoPermissionError):
                await one.execute_command(*command.split())


async def test_a_producer_reaches_its_own_stream_only(users):
    async with redis.asyncio.Redis.from_url(url_of(users, "octollm-producer")) as producer:
        await producer.xadd("ingest:default", {"body": b"{}"})
        for command in [
            "XADD ingest:other * body {}",
            "XADD {l0}:tasks:normal * body {}",
            "XREAD STREAMS ingest:default 0",
            "XDEL ingest:default 1-1",
            "XTRIM ingest:default MAXLEN 0",
            "DEL ingest:default",
            "EVALSHA 0000000000000000000000000000000000000000 0",
        ]:
            with pytest.raises(NoPermissionError):
                await producer.execute_command(*command.split())


async def test_nobody_logs_in_without_a_password_of_their_own(redis_server, client):
    name, *rules = next(line[1:] for line in USERS if line[1] == "octollm-reflex")
    await client.execute_command("ACL", "SETUSER", name, *rules)
    with pytest.raises(redis.exceptions.AuthenticationError):
        await redis.asyncio.Redis.from_url(url_of(redis_server.url, name)).ping()
