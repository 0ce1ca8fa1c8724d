"""The orchestrators publish which kinds of tasks can be planned, from their recipes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from octollm.consumer.worker import Worker
from octollm.orchestrator.maintenance import Maintenance
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import load_recipes
from octollm.protocol.kinds import publish, published_version, version_of
from octollm.supervision import Supervisor
from octollm.topology.keys import KINDS, KINDS_VERSION
from tests.helpers.consumers import topology
from tests.helpers.orchestrators import message_builder


async def test_the_schemas_and_their_version_change_together(client):
    assert await published_version(client) is None
    first, second = {"a": b"{}", "b": b"true"}, {"a": b"{}", "c": b"true"}
    for schemas in (first, second, {}):
        await publish(client, schemas)
        assert await client.hgetall(KINDS) == {kind.encode(): schema for kind, schema in schemas.items()}
        assert await published_version(client) == version_of(schemas)
    assert len({version_of(first), version_of(second), version_of({}), version_of({"a": b"{}b"})}) == 4


@pytest.fixture
async def worker(redis_server) -> AsyncIterator[Worker]:
    made = Worker(redis_server.url, 30.0, topology(), "w", Supervisor())
    yield made
    await made.stop(0)


async def test_the_orchestrator_that_started_last_decides_and_what_redis_lost_comes_back(
    worker: Worker, client, pool, tmp_path: Path
):
    arms = frozenset(topology().arms)

    def maintenance(kind: str, *, model: bool) -> Maintenance:
        folder = tmp_path / kind
        folder.mkdir()
        recipe = f"recipe: {kind}\nversion: 1\ndescription: d\ndeadline_s: 9\ninput: {{type: object}}\nanswer: 1\n"
        (folder / "one.yaml").write_text(recipe + "steps: {a: {arm: judge, input: {}}}\n")
        book, messages = load_recipes(folder, arms), message_builder()
        orchestrator = Orchestrator(pool, book, messages, 60, arms=arms, plans_by_model=model)
        return Maintenance(orchestrator, pool, topology(), messages, worker)

    async def published() -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = await client.hgetall(KINDS)
        return found

    old, new = maintenance("old", model=False), maintenance("new", model=True)
    await old.publish_kinds()
    assert await published() == {b"old": b'{"type":"object"}'}
    await new.publish_kinds()
    assert await published() == {b"new": b'{"type":"object"}', b"*": b"true"}
    await old.publish_kinds()
    assert set(await published()) == {b"new", b"*"}
    await client.delete(KINDS, KINDS_VERSION)
    await old.publish_kinds()
    assert set(await published()) == {b"old"}
