"""The reconciler sends lost steps again; after an outage of Redis it gives the original sender time first."""

import pytest

from octollm.consumer.worker import Worker
from octollm.contracts.ids import new_task_id
from octollm.errors import StoreUnavailableError
from octollm.orchestrator.messages import MessageBuilder
from octollm.orchestrator.reconciler import Reconciler
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import load_recipes
from octollm.resources import schemas_path
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.supervision import Supervisor
from octollm.topology import load_topology
from tests.helpers.consumers import KEYS
from tests.helpers.orchestrators import rows, submitted

RECIPE = """
recipe: alone
version: 1
description: one step
deadline_s: 3600
input: {type: object}
steps:
  only: {arm: judge, input: {checks: []}}
answer: {$: steps.only.output}
"""
STREAM = "{l0}:arm.judge:normal"


@pytest.fixture
async def worker(redis_server):
    made = Worker(
        redis_server.url, 30.0, load_topology(topology_path(load_settings()), schemas_path()), "w", Supervisor()
    )
    yield made
    await made.stop(0)


async def test_after_an_outage_the_original_sender_of_a_step_comes_first(client, pool, tmp_path, worker):
    (tmp_path / "alone.yaml").write_text(RECIPE)
    topology = load_topology(topology_path(load_settings()), schemas_path())
    messages = MessageBuilder(topology, 60)
    orchestrator = Orchestrator(pool, load_recipes(tmp_path, frozenset({"judge"})), messages, 3600)
    now = 1000.0
    longest = max(topic.lease_s for topic in topology.topics.values())
    reconciler = Reconciler(pool, messages, worker, 2 * longest, clock=lambda: now)
    task = new_task_id("l0")
    (answer,) = await orchestrator.handle([submitted(task, kind="alone", input={})])
    await rows(pool, "UPDATE steps SET sent_at = now() - interval '1 h' RETURNING 1")
    await client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailableError, match="read only replica"):
        await reconciler.run(10)
    await client.execute_command("REPLICAOF", "NO", "ONE")
    now += 2 * longest - 1
    await reconciler.run(10)
    assert await client.xlen(STREAM) == 0
    assert isinstance(answer, tuple)
    await worker.publish("l0", answer)
    now += 1
    await reconciler.run(10)
    ((_, sent),) = await client.xrange(STREAM)
    assert sent[b"id"].decode() == f"{task}.1.only.0.1"
    await client.delete(STREAM, KEYS.in_flight)
    await rows(pool, "UPDATE steps SET last_seen_at = NULL RETURNING 1")
    await reconciler.run(10)
    ((_, sent),) = await client.xrange(STREAM)
    assert sent[b"id"].decode() == f"{task}.1.only.0.2"
