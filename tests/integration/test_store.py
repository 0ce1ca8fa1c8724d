"""Crash points between the commit and the publication, and one bad row among good ones."""

import contextlib
from collections.abc import Sequence

import pytest

from octollm.consumer.worker import Worker
from octollm.contracts.ids import message_id, new_task_id
from octollm.errors import StoreUnavailableError, TopologyError
from octollm.orchestrator.archive import Archive
from octollm.orchestrator.maintenance import Maintenance
from octollm.orchestrator.reconciler import Reconciler
from octollm.protocol.operations import Operation, SetStatus
from octollm.supervision import Supervisor
from tests.helpers.consumers import KEYS, topology
from tests.helpers.orchestrators import dead_letter, message_builder, operations, rows, status, submitted
from tests.helpers.publishers import FakePublisher


async def test_an_expired_tasks_status_is_published_after_an_outage_of_redis(orchestrator, pool, client, redis_server):
    """The commit went through and the publication did not: the next look publishes it."""
    task = new_task_id("l0")
    worker = Worker(redis_server.url, 2, topology(), "w", Supervisor())
    (answer,) = await orchestrator.handle([submitted(task)])
    await worker.publish("l0", operations(answer))
    maintenance = Maintenance(orchestrator, pool, topology(), message_builder(), worker)
    await rows(pool, "UPDATE tasks SET deadline_at = now() - interval '1 s' RETURNING 1")
    publish = worker.publish

    async def away(*_):
        raise StoreUnavailableError("Redis: away")

    worker.publish = away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await maintenance.expire_tasks()
    worker.publish = publish  # type: ignore[method-assign]
    await maintenance.republish_ends()
    found = await client.hgetall(KEYS.status(task))
    assert (found[b"state"], await client.ttl(KEYS.status(task)) > 0) == (b"expired", True)
    # Once that is recorded, it is not published again.
    worker.publish = away  # type: ignore[method-assign]
    await maintenance.republish_ends()
    await worker._client.aclose()


async def test_ends_are_published_in_one_call(orchestrator, pool, client, redis_server):
    tasks = [new_task_id("l0") for _ in range(3)]
    await orchestrator.handle([submitted(task) for task in tasks])
    await rows(pool, "UPDATE tasks SET deadline_at = now() - interval '1 s' RETURNING 1")
    worker = Worker(redis_server.url, 2, topology(), "w", Supervisor())
    publish, sizes = worker.publish, []

    async def counted(lane, *groups):
        sizes.append(len(groups))
        await publish(lane, *groups)

    worker.publish = counted  # type: ignore[method-assign]
    await Maintenance(orchestrator, pool, topology(), message_builder(), worker).expire_tasks()
    assert sizes == [3]
    assert [await client.hget(KEYS.status(task), "state") for task in tasks] == [b"expired"] * 3
    await worker._client.aclose()


async def test_an_end_that_cannot_be_published_does_not_keep_others_of_its_call(orchestrator, pool, monkeypatch):
    good, bad = new_task_id("l0"), new_task_id("l0")
    await orchestrator.handle([submitted(task) for task in (good, bad)])
    await rows(pool, "UPDATE tasks SET deadline_at = now() - interval '1 s' RETURNING 1")
    await rows(pool, f"UPDATE tasks SET deadline_at = now() - interval '1 h' WHERE id = '{good}' RETURNING 1")
    messages, publisher = message_builder(), FakePublisher()
    published: list[Sequence[Operation]] = []
    build = messages.operations

    def refuse(decision):
        if decision.state.task == bad:
            raise TopologyError("a plan has a step for arm gone, which this topology does not have")
        return build(decision)

    async def publish(_lane, *groups):
        published.extend(groups)

    monkeypatch.setattr(messages, "operations", refuse)
    monkeypatch.setattr(publisher, "publish", publish)
    with contextlib.suppress(TopologyError):
        await Maintenance(orchestrator, pool, topology(), messages, publisher).expire_tasks()
    (operations_,) = published
    assert [one.key for one in operations_ if isinstance(one, SetStatus)] == [KEYS.status(good)]


@pytest.mark.parametrize("topic", ["steps.done", "tasks:normal"])
async def test_a_dead_letter_met_again_gives_the_status_again(orchestrator, pool, topic):
    """The first answer was committed and its publication was lost with the process."""
    archive = Archive(pool, message_builder())
    task = new_task_id("l0")
    if topic == "steps.done":
        await orchestrator.handle([submitted(task)])
    one = dead_letter("{l0}:" + topic, message_id(task, 1, "left", 0, 1) if topic == "steps.done" else task)
    (first,) = await archive.handle([one])
    (again,) = await archive.handle([one])
    assert status(first).fields["state"] == "failed"
    assert status(again) == status(first)


async def test_a_step_that_cannot_be_looked_for_holds_up_no_other(orchestrator, pool):
    bad, good = new_task_id("l0"), new_task_id("l0")
    await orchestrator.handle([submitted(bad)])
    await orchestrator.handle([submitted(good)])
    await rows(pool, "UPDATE steps SET sent_at = now() - interval '1 h' RETURNING 1")
    await rows(pool, f"UPDATE steps SET sent_at = now() - interval '2 h' WHERE task = '{bad}' RETURNING 1")

    async def exists(in_flight: str) -> bool:
        if in_flight.startswith(bad):
            raise TopologyError("a plan has a step for arm gone, which this topology does not have")
        return False

    publisher = FakePublisher(exists)
    assert await Reconciler(pool, message_builder(), publisher, 60).run(10) == 2
    assert [step.task for step in publisher.republished] == [good, good]


async def test_a_poisoned_task_leaves_no_step_in_flight_and_has_its_last_event(orchestrator, pool):
    task = new_task_id("l0")
    await orchestrator.handle([submitted(task)])
    await Archive(pool, message_builder()).handle([dead_letter("{l0}:steps.done", message_id(task, 1, "left", 0, 1))])
    assert {row["state"] for row in await rows(pool, "SELECT state FROM steps")} == {"cancelled"}
    (row,) = await rows(pool, "SELECT body, seq FROM events ORDER BY seq DESC LIMIT 1")
    (owner,) = await rows(pool, "SELECT seq FROM tasks")
    assert (row["body"]["event"], row["seq"]) == ("finished", owner["seq"])


async def test_a_dead_letter_that_cannot_be_stored_costs_only_itself(orchestrator, pool):
    # A tenant by no rule: its result cannot be read back.
    bad = dead_letter("{l0}:tasks:normal", new_task_id("l0"), 1, tenant="Not A Tenant!")
    fine = dead_letter("{l0}:tasks:normal", new_task_id("l0"), 2)
    answers = await Archive(pool, message_builder()).handle([bad, fine])
    assert status(answers[1]) is not None
    assert len(await rows(pool, "SELECT * FROM dead_letters")) == 2
