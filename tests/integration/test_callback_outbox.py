"""A callback is stored in the transaction that ends its task, and in no other."""

import orjson
import pytest

from octollm.contracts import StepError, StepFailed
from octollm.contracts.ids import message_id, new_task_id
from octollm.orchestrator import store
from octollm.orchestrator.archive import Archive
from octollm.orchestrator.callbacks import CallbackOutbox
from octollm.orchestrator.retention import purge
from tests.helpers.callbacks import (
    OLD_SECRET,
    SECRET,
    ended,
    orchestrator_with,
    rules,
    stored,
)
from tests.helpers.orchestrators import (
    cancel,
    dead_letter,
    done,
    entry_of,
    message_builder,
    rows,
    sends,
    submitted,
)
from tests.helpers.scripted_server import Answer

OK = Answer.json({"ok": True})
NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture(autouse=True)
def secrets(monkeypatch) -> None:
    monkeypatch.setenv("TEST_CALLBACK_SECRET", SECRET)
    monkeypatch.setenv("TEST_OLD_SECRET", OLD_SECRET)


@pytest.fixture
def making(pool, book):
    """An orchestrator that stores a callback for the endpoint `e0`."""
    return orchestrator_with(pool, book, rules(NOWHERE))


async def test_every_way_to_end_stores_one_callback(making, pool):
    cancelled, failed, late, poisoned, dead, succeeded = (new_task_id("l0") for _ in range(6))
    tasks = (cancelled, failed, late, poisoned, dead, succeeded)
    steps = {}
    for task in tasks:
        steps[task] = sends(*await making.handle([submitted(task, metadata={"order": "7"})]))
    assert await stored(pool) == []
    await making.handle([cancel(cancelled), cancel(cancelled)])
    error = StepError(code="broken", message="it broke")
    await making.handle([done(steps[failed][0], model=StepFailed, outcome="failed", error=error)])
    await rows(pool, f"UPDATE tasks SET deadline_at = now() - interval '1 s' WHERE id = '{late}' RETURNING 1")
    making._cache._states.clear()
    await making.expire(10)
    await making.fail(poisoned, ValueError("no"))
    archive = Archive(pool, message_builder(), CallbackOutbox(rules(NOWHERE).endpoints))
    await archive.handle([dead_letter("{l0}:steps.done", message_id(dead, 1, "left", 0, 1))])
    left, right = steps[succeeded]
    (both,) = sends(*await making.handle([done(left, {"n": 1}), done(right, {"n": 2})]))
    await making.handle([done(both, {"sum": 3}), done(both, {"sum": 3})])
    found = {row["task"]: orjson.loads(row["body"])["data"] for row in await stored(pool)}
    states = {task: (data["state"], data.get("reason")) for task, data in found.items()}
    assert states == {
        cancelled: ("cancelled", "requested"),
        failed: ("failed", "step_failed"),
        late: ("expired", "deadline"),
        poisoned: ("failed", "poison"),
        dead: ("failed", "poison"),
        succeeded: ("succeeded", None),
    }
    assert len(await stored(pool)) == 6
    assert all(data["metadata"] == {"order": "7"} and data["kind"] == "pair" for data in found.values())
    assert found[succeeded]["result"]["answer"] == 3


async def test_a_refused_submission_is_not_reported_and_an_unusable_one_is(making, pool):
    await making.handle([submitted(new_task_id("l0"), key="k"), submitted(new_task_id("l0"), key="k")])
    task = new_task_id("l0")
    body = orjson.loads(submitted(task).fields[b"body"]) | {"reason": "injection", "detail": "it gives orders"}
    await making.handle([entry_of("task.rejected.v1", task, "default", "", orjson.dumps(body), f"tasks {task}")])
    assert len(await rows(pool, "SELECT 1 FROM tasks WHERE state = 'rejected'")) == 2
    assert await stored(pool) == []
    await making.handle([submitted(new_task_id("l0"), kind="unknown")])
    (row,) = await stored(pool)
    data = orjson.loads(row["body"])["data"]
    assert (data["state"], data["reason"]) == ("rejected", "unknown_kind")


async def test_nothing_is_stored_of_an_end_that_is_not_committed(making, pool, monkeypatch):
    task = new_task_id("l0")
    await making.handle([submitted(task)])

    async def fails(*_: object) -> None:
        raise RuntimeError("the process dies here")

    with monkeypatch.context() as patched:
        patched.setattr(store, "insert_cancel_requests", fails)
        (answer,) = await making.handle([cancel(task)])
    assert isinstance(answer, RuntimeError)
    assert await stored(pool) == []
    await making.handle([cancel(task)])
    assert len(await stored(pool)) == 1


async def test_a_large_result_is_named_by_its_url(pool, book):
    making = orchestrator_with(pool, book, rules(NOWHERE), result_bytes=100, url="https://octollm.example")
    task = await ended(making)
    (row,) = await stored(pool)
    data = orjson.loads(row["body"])["data"]
    assert "result" not in data
    assert data["result_url"] == f"https://octollm.example/v1/tasks/{task}"
    assert data["result_bytes"] > 100


async def test_callbacks_are_deleted_with_their_tasks(making, pool):
    await ended(making)
    await rows(pool, "UPDATE tasks SET finished_at = now() - interval '9 days' RETURNING 1")
    await purge(pool, 5, 10, memory=False)
    assert await rows(pool, "SELECT 1 FROM tasks") == []
    assert await stored(pool) == []
