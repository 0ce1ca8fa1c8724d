"""A worker one of whose loops has ended ends too: alive, it would keep what it holds and finish nothing."""

import asyncio

import pytest

from octollm.errors import WorkerError
from octollm.protocol.handoff import Handoff
from octollm.resources import schemas_path
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import LaneKeys, load_topology
from tests.helpers.consumers import fields, judge, step


async def test_a_process_ends_when_nothing_can_be_finished_in_it_any_more(redis_server, client, monkeypatch):
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    settings = load_settings()

    async def odd(*_):
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(Handoff, "complete", odd)
    await client.xadd(LaneKeys("l0").stream(judge()), fields(step()))
    topology = load_topology(topology_path(settings), schemas_path())
    with pytest.raises(WorkerError, match=r"the loop 'complete arm.judge' ended \(ZeroDivisionError\('odd'\)\)"):
        async with asyncio.timeout(60):
            await run_roles(["judge"], settings, topology, concurrency=None, stop=asyncio.Event())
