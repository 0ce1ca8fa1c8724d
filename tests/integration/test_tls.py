"""Roles and the doctor on a Redis with TLS."""

import asyncio
from pathlib import Path

import pytest

from octollm.devstack.embedded.ports import Ports
from octollm.errors import StoreUnavailableError
from octollm.protocol.connection import probe
from octollm.resources import schemas_path
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.settings.redis_url import redis_url
from octollm.topology import load_topology
from tests.helpers.certificates import authority, serve_tls
from tests.helpers.consumers import KEYS, fields, judge, step
from tests.helpers.waiting import until


@pytest.fixture
async def url(client, tmp_path: Path):
    with Ports() as ports:
        port = ports.take(0)
    await serve_tls(client, authority(tmp_path, "ca"), port)
    return f"rediss://127.0.0.1:{port}/0"


async def test_a_role_works_over_tls(client, url, tmp_path: Path, monkeypatch):
    await client.config_set("requirepass", "secret")  # the fixture's own connection is logged in already
    monkeypatch.setenv("OCTOLLM_REDIS_URL", url.replace("rediss://", "rediss://:secret@"))
    monkeypatch.setenv("OCTOLLM_REDIS_CA_FILE", str(tmp_path / "ca.crt"))
    settings, stop = load_settings(), asyncio.Event()
    topology = load_topology(topology_path(settings), schemas_path())
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(run_roles(["judge"], settings, topology, concurrency=None, stop=stop))
        await client.xadd(KEYS.stream(judge()), fields(step(1)))
        await until(lambda: client.xlen(KEYS.done))
        # Readers, scripts, leases and the control channel: nothing speaks to the port without TLS but this test.
        assert len(await client.client_list()) > 4
        stop.set()


@pytest.mark.parametrize("ca", ["other", ""])
async def test_a_certificate_of_an_unknown_authority_is_not_accepted(url, tmp_path: Path, monkeypatch, ca):
    monkeypatch.setenv("OCTOLLM_REDIS_URL", url)
    if ca:
        monkeypatch.setenv("OCTOLLM_REDIS_CA_FILE", str(authority(tmp_path, ca)))
    with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await probe(redis_url(load_settings().redis))
