"""What an orchestrator holds of running tasks: the same as Postgres, and nothing where that has moved on."""

from dataclasses import replace
from typing import Any

from making import done, sends, submitted

from octollm.contracts.ids import new_task_id, utc_now
from octollm.database.pool import transaction
from octollm.orchestrator import store
from octollm.orchestrator.held import HeldStates
from octollm.orchestrator.state import StepRow, TaskState


async def both_ways(orchestrator: Any, pool: Any, task: str) -> tuple[TaskState, TaskState | None]:
    """As Postgres has it, and as it is held, if that still counts."""
    async with transaction(pool) as connection:
        read = await store.lock(connection, [task])
        row = await connection.fetchrow("SELECT id, run, version, updated_at FROM tasks WHERE id = $1", task)
    return read[task], orchestrator._held.of(row)


async def test_what_is_held_is_what_postgres_has(orchestrator, pool):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task, metadata={"é": "ü"})]))
    for step, output in ((left, {"n": 1.5, "text": "a\nb é"}), (right, {"n": 2**63, "deep": [[{"x": None}]]})):
        read, held = await both_ways(orchestrator, pool, task)
        assert held == read
        assert orchestrator._held.any_of([task])
        await orchestrator.handle([done(step, output)])
    read, held = await both_ways(orchestrator, pool, task)
    assert held == read
    assert read.steps["left", 0].output == {"n": 1.5, "text": "a\nb é"}


async def test_a_task_that_another_orchestrator_has_changed_is_read_anew(orchestrator, another, pool):
    for one, two in ((orchestrator, another), (another, orchestrator)):
        left, right = sends(*await one.handle([submitted(new_task_id("l0"))]))
        assert sends(*await two.handle([done(left, {"n": 1})])) == []
        (both,) = sends(*await one.handle([done(right, {"n": 2})]))
        assert both.input == {"sum": [1, 2]}


async def test_a_database_that_was_restored_counts(orchestrator, pool):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task)]))
    await orchestrator.handle([done(left, {"n": 1})])
    async with transaction(pool) as connection:
        await connection.execute("UPDATE tasks SET updated_at = updated_at - interval '1 ms'")
        await connection.execute("UPDATE steps SET output = '{\"n\": 7}' WHERE step = 'left'")
    (both,) = sends(*await orchestrator.handle([done(right, {"n": 2})]))
    assert both.input == {"sum": [7, 2]}


async def test_tasks_that_have_ended_are_held_no_longer(orchestrator):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task)]))
    (both,) = sends(*await orchestrator.handle([done(left, {"n": 1}), done(right, {"n": 2})]))
    assert orchestrator._held.any_of([task])
    await orchestrator.handle([done(both, both.input)])
    assert not orchestrator._held.any_of([task])


def a_task() -> TaskState:
    now = utc_now()
    task = new_task_id("l0")
    return TaskState(
        task=task, tenant="default", submission={"goal": "x" * 2000}, source="http", idempotency_key=task,
        fingerprint="", redactions={}, priority="normal", received_at=now, traceparent="", updated_at=now,
    )  # fmt: skip


def test_what_was_used_longest_ago_is_forgotten_first():
    held = HeldStates(most_bytes=22_000)
    states = [a_task() for _ in range(3)]
    held.keep(states, {})
    held.keep([replace(states[0], version=1)], {states[0].task: 3000})
    assert held.any_of([states[0].task])
    held.keep([a_task()], {})
    assert [held.any_of([one.task]) for one in states] == [True, False, True]


def test_large_outputs_are_not_held():
    held = HeldStates()
    state = a_task()
    held.keep([state], {})
    row = StepRow("a", 0, "noop", "succeeded", 1, "intake", utc_now(), output={"large": 1}, output_sha256="f" * 64)
    held.keep([replace(state, steps={("a", 0): row})], {})
    assert not held.any_of([state.task])
