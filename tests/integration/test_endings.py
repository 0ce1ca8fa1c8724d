"""What becomes of a task at its end and after it, on a real Postgres and Redis: cancelling, memory, deletion."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import yaml

from octollm.consumer.worker import Worker
from octollm.contracts import TaskResult, read
from octollm.contracts.ids import message_id, new_task_id, utc_now
from octollm.database.outputs import store_output
from octollm.database.pool import Pool, transaction
from octollm.orchestrator import store
from octollm.orchestrator.archive import Archive
from octollm.orchestrator.intake import InvalidMessage
from octollm.orchestrator.maintenance import Maintenance
from octollm.orchestrator.retention import purge, results_not_indexed
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import load_recipes
from octollm.protocol.handoff import Handoff
from octollm.protocol.operations import SetStatus
from octollm.resources import checkout, schemas_path
from octollm.supervision import Supervisor
from octollm.topology import Topology, load_topology
from tests.helpers.consumers import KEYS
from tests.helpers.orchestrators import (
    RECIPES,
    cancel,
    dead_letter,
    done,
    entry_of,
    events,
    message_builder,
    operations,
    result,
    rows,
    sends,
    status,
    submitted,
)
from tests.helpers.publishers import FakePublisher


async def state_of(pool: Pool, task: str) -> tuple[str, str | None]:
    (row,) = await rows(pool, f"SELECT state, reason FROM tasks WHERE id = '{task}'")
    return row["state"], row["reason"]


@pytest.fixture
def with_results(tmp_path) -> Topology:
    """The one that ships, with a topic for results."""
    root = checkout()
    assert root is not None
    text = yaml.safe_load((root / "streams.yaml").read_text())
    text["topics"]["results"] = {
        "description": "what ended", "accepts": ["task.result.v1"], "group": "memory", "handler": "octollm.memory:M",
        "concurrency": 4, "lease_s": 30, "heartbeat_s": 5, "max_deliveries": 5,
    }  # fmt: skip
    (tmp_path / "streams.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    return load_topology(tmp_path / "streams.yaml", schemas_path())


async def test_a_running_task_is_cancelled_by_its_owner_only(orchestrator, pool):
    task = new_task_id("l0")
    left, _ = sends(*await orchestrator.handle([submitted(task)]))
    (foreign,) = await orchestrator.handle([cancel(task, "other")])
    assert (result(foreign), events(foreign), await state_of(pool, task)) == (None, [], ("running", None))
    answer, again = await orchestrator.handle([cancel(task, detail="too late anyway"), cancel(task)])
    assert (status(answer).fields["state"], status(answer).fields["detail"]) == ("cancelled", "too late anyway")
    assert result(answer) is not None
    assert (result(again), events(again)) == (None, [])
    assert sends(*await orchestrator.handle([done(left, {"n": 1}), submitted(task)])) == []
    assert await state_of(pool, task) == ("cancelled", "requested")
    assert {row["state"] for row in await rows(pool, "SELECT state FROM steps")} == {"cancelled"}


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "before"])
async def test_a_request_that_comes_before_its_task_waits_for_it(orchestrator, pool, together):
    task = new_task_id("l0")
    messages = [cancel(task, "other"), cancel(task, detail="gone"), cancel(task), submitted(task)]
    answers = await orchestrator.handle(messages) if together else []
    for message in () if together else messages:
        answers += await orchestrator.handle([message])
    assert sends(*answers) == []
    (row,) = await rows(pool, "SELECT state, detail FROM tasks")
    assert (row["state"], row["detail"]) == ("cancelled", "gone")
    assert len(await rows(pool, "SELECT * FROM cancel_requests")) == (0 if together else 2)


async def test_a_foreign_request_waits_in_vain_and_old_ones_are_deleted(orchestrator, pool):
    task = new_task_id("l0")
    await orchestrator.handle([cancel(task, "other")])
    assert len(sends(*await orchestrator.handle([submitted(task)]))) == 2
    assert await orchestrator.expire(10) == []
    await orchestrator.delete_expired_keys(10)
    assert len(await rows(pool, "SELECT * FROM cancel_requests")) == 1
    await rows(pool, "UPDATE cancel_requests SET received_at = now() - interval '8 days' RETURNING 1")
    await orchestrator.delete_expired_keys(10)
    assert await rows(pool, "SELECT * FROM cancel_requests") == []


async def test_what_is_refused_stays_so_when_it_is_cancelled_too(orchestrator, pool):
    one, two = new_task_id("l0"), new_task_id("l0")
    await orchestrator.handle([submitted(one, key="k"), cancel(two), submitted(two, key="k")])
    assert await state_of(pool, two) == ("rejected", "duplicate")
    three = new_task_id("l0")
    body = orjson.loads(submitted(three).fields[b"body"]) | {"reason": "injection", "detail": "it gives orders"}
    refused = entry_of("task.rejected.v1", three, "default", "", orjson.dumps(body), f"tasks {three}")
    await orchestrator.handle([cancel(three), refused])
    assert await state_of(pool, three) == ("rejected", "injection")


async def test_a_request_that_its_tasks_intake_did_not_see_is_found(orchestrator, pool):
    """Both were stored at the same moment, by two orchestrators."""
    task = new_task_id("l0")
    await orchestrator.handle([submitted(task)])
    async with transaction(pool) as connection:
        request = {"task": task, "tenant": "default", "detail": None, "requested_at": utc_now()}
        await store.insert_cancel_requests(connection, [request])
    (answer,) = await orchestrator.cancel_overlooked(10)
    assert result(answer) is not None
    assert await state_of(pool, task) == ("cancelled", "requested")
    # It is published again until that is recorded, with its result.
    (again,) = await orchestrator.unpublished(10)
    assert (status(again), result(again)) == (status(answer), result(answer))
    await orchestrator.mark_published([task])
    assert (await orchestrator.unpublished(10), await orchestrator.cancel_overlooked(10)) == ([], [])


async def test_a_request_that_cannot_be_read_does_not_end_its_task(orchestrator, pool):
    task = new_task_id("l0")
    await orchestrator.handle([submitted(task)])
    (answer,) = await orchestrator.handle([entry_of("task.cancel.v1", task, "default", "", b"{}", "x")])
    assert isinstance(answer, InvalidMessage)
    await Archive(pool, message_builder()).handle([dead_letter("{l0}:steps.done", task, type="task.cancel.v1")])
    assert await state_of(pool, task) == ("running", None)


async def finished(orchestrator: Orchestrator, **submission: Any) -> str:
    """A task that has run to its end."""
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task, **submission)]))
    (both,) = sends(*await orchestrator.handle([done(left, {"n": 1}), done(right, {"n": 2})]))
    (last, late) = await orchestrator.handle([done(both, {"sum": 3}), done(both, {"sum": 3})])
    assert result(last) is not None
    assert result(late) is None
    return task


@pytest.mark.parametrize(("size", "by_reference"), [(8190, False), (8191, True), (500_000, True)])
async def test_a_large_answer_stays_in_postgres_on_its_way_to_memory(
    orchestrator, pool, with_results, size, by_reference
):
    task, large = new_task_id("l0"), "x" * size
    left, right = sends(*await orchestrator.handle([submitted(task)]))
    (both,) = sends(*await orchestrator.handle([done(left, {"n": 1}), done(right, {"n": 2})]))
    await orchestrator.handle([done(both, {"sum": large})])
    async with transaction(pool) as connection:
        (state,) = (await store.lock(connection, [task])).states.values()
    (published,) = message_builder(with_results).result(state)
    body = published.fields["body"]
    assert isinstance(body, bytes)
    sent = read(TaskResult, body)
    if by_reference:
        assert (sent.answer, sent.answer_bytes) == (None, size + 2)
        assert len(body) < 1000
    else:
        assert (sent.answer, sent.answer_bytes) == (large, None)
    assert (sent.task, sent.state, len(sent.steps)) == (task, "succeeded", 3)
    (stored,) = await rows(pool, "SELECT result ->> 'answer' AS answer FROM tasks")
    assert stored["answer"] == large


async def test_every_end_gives_its_result_to_memory_once(orchestrator, pool, client, redis_server, with_results):
    messages = message_builder(with_results)
    worker = Worker(redis_server.url, 2, with_results, "w", Supervisor())
    lane = Handoff(client, "l0", "", "w")
    done_, late, poisoned, cancelled = await finished(orchestrator), *(new_task_id("l0") for _ in range(3))
    await orchestrator.handle([submitted(task) for task in (late, poisoned, cancelled)])
    await rows(pool, f"UPDATE tasks SET deadline_at = now() - interval '1 s' WHERE id = '{late}' RETURNING 1")
    maintenance = Maintenance(orchestrator, pool, with_results, messages, worker)
    await maintenance.expire_tasks()
    for handle, message in (
        (Archive(pool, messages).handle, dead_letter("{l0}:steps.done", message_id(poisoned, 1, "left", 0, 1))),
        (orchestrator.handle, cancel(cancelled)),
    ):
        (answer,) = await handle([message])
        await lane.publish(operations(answer))
    entries = await client.xrange("{l0}:results")
    results = [read(TaskResult, fields[b"body"]) for _, fields in entries]
    assert [(one.task, one.state) for one in results] == [
        (late, "expired"), (poisoned, "failed"), (cancelled, "cancelled"),
    ]  # fmt: skip
    assert {fields[b"type"] for _, fields in entries} == {b"task.result.v1"}
    assert [fields[b"id"].decode() for _, fields in entries] == [one.task for one in results]
    ended = await rows(pool, "SELECT finished_at, result_sent_at FROM tasks")
    assert all(row["finished_at"] and row["result_sent_at"] for row in ended)
    # Without the topic nothing is sent.
    async with transaction(pool) as connection:
        (state,) = (await store.lock(connection, [late])).states.values()
    assert (len(messages.result(state)), message_builder(without_results()).result(state)) == (1, ())
    # What memory has not taken in for long is sent again; what may still lie before it is not.
    await rows(pool, "UPDATE tasks SET result_sent_at = now() - interval '1 h' RETURNING 1")
    await rows(pool, f"UPDATE tasks SET indexed_at = now() WHERE id = '{late}' RETURNING 1")
    await maintenance.republish_results()
    again = [fields[b"id"].decode() for _, fields in (await client.xrange("{l0}:results"))[3:]]
    assert sorted(again) == sorted([done_, poisoned, cancelled])
    await maintenance.republish_results()
    assert await client.xlen("{l0}:results") == 6
    await worker._client.aclose()


def without_results() -> Topology:
    root = checkout()
    assert root is not None
    text = (root / "bench" / "streams.yaml").read_text()
    assert "results:" not in text
    return load_topology(root / "bench" / "streams.yaml", schemas_path())


async def test_a_result_is_sent_again_more_and_more_rarely_and_not_while_it_may_be_waiting(orchestrator, pool):
    task = await finished(orchestrator)

    async def look(hours: float, oldest: datetime | None = None) -> int:
        await rows(pool, f"UPDATE tasks SET result_sent_at = now() - interval '{hours} h' RETURNING 1")
        return len(await results_not_indexed(pool, 3600, oldest, 10))

    assert await look(0.9) == 0
    assert await look(5, datetime.now(UTC) - timedelta(hours=5.5)) == 0
    assert [await look(1.1), await look(1.1), await look(2.1), await look(2.1), await look(4.1)] == [1, 0, 1, 0, 1]
    await rows(pool, f"UPDATE tasks SET indexed_at = now() WHERE id = '{task}' RETURNING 1")
    assert await look(1000) == 0


async def test_what_ended_long_ago_is_deleted_with_all_it_left_once_memory_has_deleted_it(orchestrator, pool):
    old, new, running = await finished(orchestrator), await finished(orchestrator), new_task_id("l0")
    await orchestrator.handle([submitted(running)])
    await Archive(pool, message_builder()).handle(
        [dead_letter("{l0}:arm.noop:normal", message_id(old, 1, "left", 0, 1))]
    )
    async with transaction(pool) as connection:
        for digest in ("a" * 64, "b" * 64, "c" * 64):
            await store_output(connection, "default", digest, b"{}")
    await rows(pool, f"UPDATE steps SET output_sha256 = repeat('a', 64) WHERE task = '{old}' RETURNING 1")
    await rows(pool, f"UPDATE steps SET output_sha256 = repeat('b', 64) WHERE task = '{new}' RETURNING 1")
    await rows(pool, "UPDATE outputs SET created_at = now() - interval '40 days' WHERE sha256 < 'c' RETURNING 1")
    await rows(pool, f"UPDATE tasks SET finished_at = now() - interval '31 days' WHERE id = '{old}' RETURNING 1")
    await rows(pool, f"UPDATE tasks SET received_at = now() - interval '99 days' WHERE id = '{running}' RETURNING 1")
    await purge(pool, 30, 100, memory=True)
    assert len(await rows(pool, "SELECT 1 FROM tasks")) == 3  # marked, and memory has not spoken
    marked = await rows(
        pool, "UPDATE tasks SET memory_deleted_at = now() WHERE purge_requested_at IS NOT NULL RETURNING id"
    )
    assert [row["id"] for row in marked] == [old]
    await purge(pool, 30, 100, memory=True)
    assert {row["id"] for row in await rows(pool, "SELECT id FROM tasks")} == {new, running}
    for table in ("runs", "steps", "attempts", "events", "dead_letters"):
        assert await rows(pool, f"SELECT 1 FROM {table} WHERE task = '{old}'") == []
    assert [row["sha256"][0] for row in await rows(pool, "SELECT sha256 FROM outputs ORDER BY 1")] == ["b", "c"]


async def test_without_memory_the_rows_go_at_once_and_in_batches(orchestrator, pool):
    for _ in range(5):
        await finished(orchestrator)
    await rows(pool, "UPDATE tasks SET finished_at = now() - interval '2 days' RETURNING 1")
    assert await purge(pool, 1, 2, memory=False)
    assert len(await rows(pool, "SELECT 1 FROM tasks")) == 3
    await Maintenance(orchestrator, pool, without_results(), message_builder(), FakePublisher()).delete_old_tasks(1)
    assert await rows(pool, "SELECT 1 FROM tasks") == []


async def test_dead_letters_of_no_task_go_by_their_own_age(orchestrator, pool):
    task, gone = await finished(orchestrator), new_task_id("l0")
    for number, id_ in enumerate(("", gone, task)):
        await Archive(pool, message_builder()).handle([dead_letter("{l0}:results", id_, number)])
        await rows(pool, "UPDATE dead_letters SET received_at = received_at - interval '20 h' RETURNING 1")
    await purge(pool, 2, 10, memory=False)
    assert [row["task"] for row in await rows(pool, "SELECT task FROM dead_letters ORDER BY id")] == [gone, task]
    await rows(pool, "UPDATE dead_letters SET received_at = received_at - interval '2 days' RETURNING 1")
    assert await purge(pool, 2, 1, memory=False)
    assert [row["task"] for row in await rows(pool, "SELECT task FROM dead_letters")] == [task]


async def test_an_output_that_is_stored_again_counts_as_new(pool):
    async with transaction(pool) as connection:
        await store_output(connection, "default", "a" * 64, b"{}")
    await rows(pool, "UPDATE outputs SET created_at = now() - interval '40 days' RETURNING 1")
    async with transaction(pool) as connection:
        await store_output(connection, "default", "a" * 64, b"{}")
    await purge(pool, 1, 10, memory=False)
    assert len(await rows(pool, "SELECT 1 FROM outputs")) == 1


async def test_a_plan_by_the_model_is_stored_with_its_run(pool, tmp_path):
    (tmp_path / "pair.yaml").write_text(RECIPES)
    arms = frozenset({"noop", "planner"})
    orchestrator = Orchestrator(
        pool, load_recipes(tmp_path, arms), message_builder(), 3600, arms=arms, plans_by_model=True
    )
    task = new_task_id("l0")
    (asked,) = sends(*await orchestrator.handle([submitted(task, kind=None)]))
    plan = {
        "steps": {"one": {"arm": "noop", "input": {"n": {"$": "task.input.n"}}}},
        "answer": {"$": "steps.one.output"},
    }
    (one,) = sends(*await orchestrator.handle([done(asked, {"plan": plan, "mode": "model"})]))
    assert one.input == {"n": 1}
    await orchestrator.handle([done(one, {"n": 1})])
    (row,) = await rows(pool, "SELECT plan, result, deadline_at FROM runs JOIN tasks ON id = task")
    assert [step["name"] for step in row["plan"]["steps"]] == ["plan", "one"]
    assert (row["result"]["answer"], row["result"]["mode"]) == ({"n": 1}, "model")
    assert row["deadline_at"] is not None


async def test_a_status_keeps_nothing_of_an_older_one(orchestrator, client):
    task = new_task_id("l0")
    lane = Handoff(client, "l0", "", "w")
    (answer,) = await orchestrator.handle([submitted(task)])
    await lane.publish([one for one in operations(answer) if isinstance(one, SetStatus)])
    assert [one["step"] for one in orjson.loads(await client.hget(KEYS.status(task), "open"))] == ["left", "right"]
    (answer,) = await orchestrator.handle([cancel(task)])
    await lane.publish([one for one in operations(answer) if isinstance(one, SetStatus)])
    found = await client.hgetall(KEYS.status(task))
    assert (b"open" in found, found[b"state"]) == (False, b"cancelled")
    assert await client.ttl(KEYS.status(task)) > 0
