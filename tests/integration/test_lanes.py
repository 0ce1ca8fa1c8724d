"""Two lanes in one process: a task of the second lane runs like one of the first."""

import asyncio

import pytest

from octollm.resources import schemas_path
from octollm.runtime.roles import python_roles
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import LaneKeys, load_topology
from tests.helpers.messages import submitted_entry
from tests.helpers.waiting import until


@pytest.mark.parametrize("orchestrators", [1, 2])
async def test_two_lanes(redis_server, client, dsn, monkeypatch, tmp_path, orchestrators):
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    settings = load_settings()
    text = topology_path(settings).read_text().replace("lanes: [l0]", "lanes: [l0, l1]")
    (tmp_path / "streams.yaml").write_text(text)
    topology = load_topology(tmp_path / "streams.yaml", schemas_path())
    stop = asyncio.Event()
    runs = [
        asyncio.create_task(run_roles(list(python_roles(topology)), settings, topology, concurrency=None, stop=stop))
        for _ in range(orchestrators)
    ]
    tasks = []
    for number in range(60):
        lane = f"l{number % 2}"
        task, stream, fields = submitted_entry(lane, kind="note", input={"text": "t"})
        await client.xadd(stream, fields)
        tasks.append((lane, task))

    async def all_done():
        states = [await client.hget(LaneKeys(lane).status(task), "state") for lane, task in tasks]
        return states == [b"succeeded"] * len(tasks)

    async def nothing_left():
        for lane in ("l0", "l1"):
            for stream in await client.keys(f"{{{lane}}}:*"):
                waits_on = await client.type(stream) == b"stream" and not stream.endswith(b"events")
                if waits_on and await client.xlen(stream):
                    return False
        return True

    try:
        await until(all_done)
        await until(nothing_left)  # the archive and the memory index come after the end of the task
        for lane in ("l0", "l1"):
            assert await client.hlen(LaneKeys(lane).in_flight) == 0
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*runs), 120)
    leftover = []
    for stream in await client.keys("*"):
        if await client.type(stream) == b"stream" and not stream.endswith(b"events"):
            for group in await client.xinfo_groups(stream):
                leftover += await client.xinfo_consumers(stream, group["name"])
    assert leftover == []
