"""Each background loop and thread of a worker, broken: the process turns unready and ends.

Alive, it would keep what it holds and finish nothing.
"""

import asyncio
import threading
from http.server import ThreadingHTTPServer

import httpx
import pytest

from octollm.batching import _Partition
from octollm.consumer import worker as worker_module
from octollm.consumer.consumer import Consumer
from octollm.consumer.executor import Executor
from octollm.consumer.intake import Intake
from octollm.consumer.leases import LeaseRenewer
from octollm.consumer.reader import _Subscriber
from octollm.consumer.releaser import Releaser
from octollm.consumer.worker import Worker
from octollm.devstack.embedded.ports import Ports
from octollm.errors import WorkerError
from octollm.periodic import Alarm
from octollm.protocol.handoff import Handoff
from octollm.resources import schemas_path
from octollm.runtime.store_watch import StoreWatch
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import LaneKeys, load_topology
from tests.helpers.consumers import dead_workers, fields, judge, step


def _break(*_args, **_options):
    raise ZeroDivisionError("odd")


async def _break_later(*_args, **_options):
    raise ZeroDivisionError("odd")


BROKEN = {
    "complete arm.judge": (Handoff, "complete", _break_later),
    "release arm.judge": (Releaser, "_run", _break_later),
    "claim arm.judge": (Handoff, "claim", _break_later),
    "promote l0": (Handoff, "promote", _break_later),
    "listen": (worker_module, "listen", _break_later),
    "read arm.judge": (_Subscriber, "_read", _break_later),
    "admit": (Intake, "admit", _break),
    "work arm.judge": (Executor, "_run", _break_later),
    "leases judge": (LeaseRenewer, "_run", _break),
    "isolate arm.judge": (Intake, "_isolate", _break_later),
    "watch Redis": (StoreWatch, "_look", _break_later),
}
OF_OTHER_ROLES = {
    "expire tasks": ("orchestrator", Alarm, "wait"),  # the first of the periodic jobs
    "batch orchestrator 0": ("orchestrator", _Partition, "run"),
    "batch archive 0": ("archive", _Partition, "run"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_worker_ends_when_one_of_its_loops_breaks(redis_server, client, monkeypatch, name):
    where, attribute, instead = BROKEN[name]
    readiness = []
    with Ports() as ports:
        listen = f"127.0.0.1:{ports.take()}"
    stop = Worker.stop

    async def stop_and_look(self, drain_s, **options):
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            readiness.append((await http.get(f"http://{listen}/readyz")).json())
        await stop(self, drain_s, **options)

    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setenv("OCTOLLM_WORKER_METRICS_LISTEN", listen)
    monkeypatch.setattr(Worker, "stop", stop_and_look)
    monkeypatch.setattr(where, attribute, instead)
    settings = load_settings()
    stream = LaneKeys("l0").stream(judge())
    if name.startswith("isolate"):
        await dead_workers(client, stream, 1, [1])
        ((entry, _),) = await client.xrange(stream)
        await client.xclaim(stream, "judge", "killed", 0, [entry], idle=10**8, retrycount=2, justid=True)
    await client.xadd(stream, fields(step()))
    topology = load_topology(topology_path(settings), schemas_path())
    broken = "read arm.judge" if name == "admit" else name
    with pytest.raises(WorkerError, match=rf"'{broken}' ended unexpectedly \(ZeroDivisionError\('odd'\)\)"):
        async with asyncio.timeout(60):
            await run_roles(["judge"], settings, topology, concurrency=None, stop=asyncio.Event())
    assert readiness[0]["ready"] is False
    assert any(f"'{broken}' ended unexpectedly" in reason for reason in readiness[0]["reasons"])


@pytest.mark.parametrize("name", OF_OTHER_ROLES)
async def test_a_role_ends_when_a_loop_of_its_own_breaks(redis_server, dsn, monkeypatch, name):
    role, where, attribute = OF_OTHER_ROLES[name]
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setattr(where, attribute, _break_later)
    settings = load_settings()
    topology = load_topology(topology_path(settings), schemas_path())
    with pytest.raises(WorkerError, match=rf"'{name}' ended unexpectedly \(ZeroDivisionError\('odd'\)\)"):
        async with asyncio.timeout(60):
            await run_roles([role], settings, topology, concurrency=None, stop=asyncio.Event())


async def test_a_worker_ends_when_its_metrics_thread_breaks(redis_server, monkeypatch):
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", _break)
    monkeypatch.setattr(ThreadingHTTPServer, "shutdown", lambda _self: None)  # waits for a loop that has not begun
    settings = load_settings()
    topology = load_topology(topology_path(settings), schemas_path())
    with pytest.raises(WorkerError, match="'metrics' ended unexpectedly"):
        async with asyncio.timeout(60):
            await run_roles(["judge"], settings, topology, concurrency=None, stop=asyncio.Event())


async def test_a_start_that_fails_half_way_leaves_nothing_behind(redis_server, monkeypatch):
    """The second consumer cannot start: the first one's loops and threads end, and its connections close."""
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    settings = load_settings()
    topology = load_topology(topology_path(settings), schemas_path())
    start = Consumer.start
    started: list[Consumer] = []

    async def second_breaks(self, broker):
        if started:
            raise ZeroDivisionError("odd")
        started.append(self)
        await start(self, broker)

    monkeypatch.setattr(Consumer, "start", second_breaks)
    before, threads = asyncio.all_tasks(), set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(60):
            await run_roles(["judge", "guardian"], settings, topology, concurrency=None, stop=asyncio.Event())
    assert started
    assert asyncio.all_tasks() == before
    # Those of asyncio's own pool stay.
    assert {one.name for one in set(threading.enumerate()) - threads if not one.name.startswith("asyncio")} == set()
