"""A store that hangs: requests are refused within a second, readiness turns red within two, and both recover."""

import asyncio
import signal
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from octollm.resources import schemas_path
from octollm.runtime.api_role import serve_api
from octollm.runtime.store_watch import ASKS, LISTENS, Pace, PostgresCheck, StoreWatch
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.supervision import Supervisor
from octollm.topology import load_topology
from tests.helpers.postgres_proxy import proxied
from tests.helpers.waiting import until

TASK = "/v1/tasks/l0-01h00000000000000000000000"
NOTICED_S = 2.5
"""Two seconds, and what a busy machine adds."""


@pytest.fixture
async def way(dsn):
    async with proxied(dsn) as way:
        yield way


@pytest.fixture
def proxy(way):
    return way[0]


@pytest.fixture
def through(way):
    """Postgres behind the proxy, which can hang."""
    return way[1]


async def test_the_api_answers_503_within_a_second_while_postgres_hangs(through, proxy, pool, monkeypatch):
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", through)
    monkeypatch.setenv("OCTOLLM_API_LISTEN", "127.0.0.1:0")
    async with (
        serve_api(load_settings()) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        assert (await client.get("/readyz")).status_code == HTTPStatus.OK
        proxy.hold()
        # More requests than the pool has connections: those that wait for one must not add up their times.
        for paths in (["/readyz"], [TASK] * 30, ["/readyz"]):
            answers = await asyncio.gather(*(client.get(path) for path in paths))
            assert {answer.status_code for answer in answers} == {HTTPStatus.SERVICE_UNAVAILABLE}
            assert max(answer.elapsed.total_seconds() for answer in answers) < 2  # a second, and a busy machine
        proxy.release()

        async def ready():
            return (await client.get("/readyz")).status_code == HTTPStatus.OK

        await until(ready)
        assert (await client.get(TASK)).status_code == HTTPStatus.NOT_FOUND


async def test_a_watched_store_that_hangs_makes_the_process_unready_until_it_answers(through, proxy):
    supervisor, check = Supervisor(), PostgresCheck(through)
    answers = 0

    async def answer() -> None:
        nonlocal answers
        await check()
        answers += 1

    watch = StoreWatch({"Postgres": (answer, Pace(0.02, 0.9))})
    watch.start(supervisor)

    async def answered():
        return answers > 1

    async def red():
        return watch.reasons() != []

    async def green():
        return watch.reasons() == []

    await until(answered)
    assert watch.reasons() == []
    proxy.hold()
    await until(red)
    (reason,) = watch.reasons()
    assert reason == "Postgres is unavailable: no answer within 0.9 s"
    proxy.release()
    await until(green)
    proxy.refuses = True
    proxy.reset()
    await until(red)
    proxy.refuses = False
    await until(green)
    assert supervisor.failure is None
    await supervisor.stop()
    check.close()


def test_a_hang_is_noticed_within_two_seconds():
    assert all(pace.pause_s + pace.timeout_s < 2 for pace in (ASKS, LISTENS))


async def test_a_check_that_the_process_itself_held_up_says_nothing():
    clock = asyncio.get_running_loop().time

    async def held_up() -> None:
        until_ = clock() + 0.5
        while clock() < until_:
            pass  # another handler blocks the event loop
        await asyncio.Event().wait()

    watch = StoreWatch({"Redis": (held_up, ASKS)})
    await watch._look("Redis", held_up, 0.05)
    assert watch.reasons() == []


@pytest.mark.parametrize("role", ["judge", "orchestrator", "archive"])
async def test_a_worker_is_not_ready_within_two_seconds_while_redis_hangs(
    redis_server, client, dsn, monkeypatch, unused_tcp_port, role
):
    """By SIGSTOP: connections stay open and nothing answers. Nobody has to restart the worker afterwards."""
    listen = f"127.0.0.1:{unused_tcp_port}"
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_WORKER_METRICS_LISTEN", listen)
    settings, stop = load_settings(), asyncio.Event()
    topology = load_topology(topology_path(settings), schemas_path())
    clock = asyncio.get_running_loop().time
    worker = asyncio.create_task(run_roles([role], settings, topology, concurrency=None, stop=stop))
    async with httpx.AsyncClient(base_url=f"http://{listen}", trust_env=False, timeout=60) as http:

        async def said() -> dict[str, Any]:
            try:
                answer: dict[str, Any] = (await http.get("/readyz")).json()
            except httpx.ConnectError:
                return {"ready": False}
            return answer

        async def ready() -> bool:
            return bool((await said())["ready"])

        async def not_ready() -> bool:
            return not await ready()

        try:
            await until(ready)
            for _ in range(2):
                redis_server.child.send(signal.SIGSTOP)
                began = clock()
                await until(not_ready)
                assert clock() - began < NOTICED_S
                assert any("Redis is unavailable" in reason for reason in (await said())["reasons"])
                redis_server.child.send(signal.SIGCONT)
                await until(ready)
            assert not worker.done()
            assert await client.ping()
        finally:
            redis_server.child.send(signal.SIGCONT)
            stop.set()
            await worker
