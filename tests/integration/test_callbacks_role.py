"""The role `callbacks` as a process of its own, killed and started again, and what the orchestrator stores for it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import yaml

from octollm.plans.recipes import load_recipes
from octollm.resources import schemas_path
from octollm.runtime.callbacks_role import load_rules
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import load_topology
from tests.helpers.callbacks import SECRET, ended, is_signed, make_due, message, orchestrator_with, rules, stored
from tests.helpers.orchestrators import RECIPES, rows
from tests.helpers.programs import octollm
from tests.helpers.scripted_server import Answer, Request, serving
from tests.helpers.tasks import put
from tests.helpers.waiting import until

OK = Answer.json({"ok": True})


@pytest.fixture
def configure(dsn, tmp_path, monkeypatch) -> Callable[[str], None]:
    """Writes a callbacks.yaml with one endpoint, and sets everything else that the role needs."""

    def write(url: str) -> None:
        known = rules(url).model_dump(mode="json")
        (tmp_path / "callbacks.yaml").write_text(yaml.safe_dump(known))
        monkeypatch.setenv("OCTOLLM_CALLBACKS_FILE", str(tmp_path / "callbacks.yaml"))
        monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
        monkeypatch.setenv("TEST_CALLBACK_SECRET", SECRET)

    return write


@asynccontextmanager
async def role() -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "octollm", "worker", "callbacks", stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def holding() -> AsyncIterator[tuple[str, asyncio.Queue[Request]]]:
    """A receiver that takes a callback and does not answer before it is closed."""
    taken: asyncio.Queue[Request] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = (line.partition(": ") for line in head.rstrip().split("\r\n")[1:])
        headers = {name.lower(): value for name, _, value in lines}
        body = await reader.readexactly(int(headers["content-length"]))
        taken.put_nowait(Request("POST", "/", headers, body))
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/", taken


async def test_a_process_that_is_killed_between_sending_and_recording_sends_again(pool, tmp_path, configure):
    (tmp_path / "pair.yaml").write_text(RECIPES)
    book = load_recipes(tmp_path, frozenset({"noop"}))
    async with holding() as (url, taken):
        configure(url)
        # The orchestrator has committed, and no sender runs yet.
        task = await ended(orchestrator_with(pool, book, rules(url)))
        async with role() as process:
            first = await taken.get()
            process.send_signal(signal.SIGKILL)
            await process.wait()
        (row,) = await stored(pool)
        assert (row["state"], row["attempts"]) == ("pending", 1)
        await make_due(pool)  # the claim expires
        async with role():
            second = await taken.get()
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"{task}.1"
    assert first.body == second.body
    assert is_signed(second, SECRET)


async def test_the_role_reports_its_readiness_and_drains(pool, tmp_path, configure, monkeypatch, unused_tcp_port):
    (tmp_path / "pair.yaml").write_text(RECIPES)
    book = load_recipes(tmp_path, frozenset({"noop"}))
    monkeypatch.setenv("OCTOLLM_WORKER_METRICS_LISTEN", f"127.0.0.1:{unused_tcp_port}")
    async with serving(OK) as server, httpx.AsyncClient(trust_env=False) as client:
        configure(server.url)
        await ended(orchestrator_with(pool, book, rules(server.url)))
        async with role() as process:

            async def delivered() -> bool:
                return bool(await rows(pool, "SELECT 1 FROM callbacks WHERE state = 'delivered'"))

            await until(delivered, "the callback")
            base = f"http://127.0.0.1:{unused_tcp_port}"
            assert (await client.get(f"{base}/readyz")).json() == {"ready": True, "reasons": []}
            metrics = (await client.get(f"{base}/metrics")).text
            assert 'octollm_callback_attempts_total{outcome="delivered"} 1.0' in metrics
            process.send_signal(signal.SIGTERM)
            _, log = await process.communicate()
            assert process.returncode == 0, log.decode()
    assert SECRET not in log.decode()
    assert server.url.rpartition("/")[2] + "/" not in log.decode()


async def test_the_orchestrators_role_reports_to_the_file_and_to_the_submissions_url(
    pool, dsn, client, redis_server, configure, monkeypatch
):
    async with serving(OK) as server:
        configure(f"{server.url}/file")
        monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
        settings = load_settings()
        topology = load_topology(topology_path(settings), schemas_path())
        stop = asyncio.Event()
        work = asyncio.create_task(run_roles(["orchestrator"], settings, topology, concurrency=None, stop=stop))
        try:
            task = await put(client, goal="no recipe", kind="nothing", callback={"url": f"{server.url}/given?x=1"})

            async def both() -> bool:
                return len(await stored(pool)) == 2

            await until(both, "two callbacks")
            async with role():

                async def received() -> bool:
                    return len(server.requests) == 2

                await until(received, "both receivers")
        finally:
            stop.set()
            await asyncio.wait_for(work, 60)
    assert sorted(request.target for request in server.requests) == ["/file", "/given?x=1"]
    for request in server.requests:
        assert is_signed(request, SECRET)
        assert message(request)["data"]["task"] == task
        assert (message(request)["data"]["state"], message(request)["data"]["reason"]) == ("rejected", "unknown_kind")
    assert {row["endpoint"] for row in await stored(pool)} == {"e0", f"{server.url}/given"}


def test_a_wrong_file_prevents_the_start(tmp_path, monkeypatch):
    (tmp_path / "callbacks.yaml").write_text("version: 1\n")
    answer = octollm("worker", "callbacks", OCTOLLM_CALLBACKS_FILE=str(tmp_path / "callbacks.yaml"))
    assert answer.returncode == 1
    assert "tenants: missing; add it" in answer.stderr


def test_a_missing_secret_does_not_prevent_the_start(configure, monkeypatch):
    configure("http://127.0.0.1:9/")
    monkeypatch.delenv("TEST_CALLBACK_SECRET")
    assert load_rules(load_settings()).endpoints
    assert "TEST_CALLBACK_SECRET" not in os.environ
