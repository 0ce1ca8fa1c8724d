"""What an orchestrator holds of running tasks: the same as Postgres, and nothing where that has moved on."""

from dataclasses import replace
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octollm.contracts.ids import new_task_id, utc_now
from octollm.database.pool import transaction
from octollm.orchestrator import store
from octollm.orchestrator.state import StepRow, TaskState
from octollm.orchestrator.state_cache import StateCache
from octollm.plans.stored import as_stored
from tests.helpers.orchestrators import done, sends, submitted


async def both_ways(orchestrator: Any, pool: Any, task: str) -> tuple[TaskState, TaskState | None]:
    """As Postgres has it, and as it is held, if that still counts."""
    async with transaction(pool) as connection:
        read = (await store.lock(connection, [task])).states
        row = await connection.fetchrow("SELECT id, run, version, updated_at FROM tasks WHERE id = $1", task)
    return read[task], orchestrator._cache.get(row)


async def test_what_is_held_is_what_postgres_has(orchestrator, pool):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task, metadata={"é": "ü", "a": "b"})]))
    for step, output in (
        (left, {"n": 1.5, "text": "a\nb é", "m": 1e16}),
        (right, {"n": 2**63, "deep": [[{"xx": None, "a": -0.0}]]}),
        (None, None),
    ):
        read, held = await both_ways(orchestrator, pool, task)
        assert held == read
        assert written(held) == written(read)
        if step is not None:
            await orchestrator.handle([done(step, output)])
    assert read.steps["left", 0].output == {"n": 1.5, "text": "a\nb é", "m": 10**16}


def written(state: TaskState | None) -> bytes:
    """With the order of keys and the kinds of numbers, which `==` passes over."""
    assert state is not None
    return orjson.dumps([state.submission, [row.output for _, row in sorted(state.steps.items())]])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé\n", max_size=3)
        | st.integers(-(2**63), 2**64 - 1)
        | st.sampled_from([1e16, -1e16, -(2.0**63), -1e19, 1.2345678901234567e19, 2.0**64, 1e300, -0.0, 1e-9]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["b", "a", "ab", "é"]), inner),
        max_leaves=10,
    )
)  # fmt: skip
async def test_the_stored_form_is_what_postgres_gives_back(pool, value: Any):
    async with transaction(pool) as connection:
        back = await connection.fetchval("SELECT $1::jsonb", value)
    assert orjson.dumps(as_stored(back)) == orjson.dumps(as_stored(value))


async def test_a_task_that_another_orchestrator_has_changed_is_read_anew(orchestrator, another, pool):
    for one, two in ((orchestrator, another), (another, orchestrator)):
        left, right = sends(*await one.handle([submitted(new_task_id("l0"))]))
        assert sends(*await two.handle([done(left, {"n": 1})])) == []
        assert (await both_ways(one, pool, left.task))[1] is None
        assert not one._cache.has_any([left.task]), "its size would be that of another state"
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
    assert orchestrator._cache.has_any([task])
    await orchestrator.handle([done(both, both.input)])
    assert not orchestrator._cache.has_any([task])


def a_task() -> TaskState:
    now = utc_now()
    task = new_task_id("l0")
    return TaskState(
        task=task, tenant="default", submission={"goal": "x" * 2000}, source="http", idempotency_key=task,
        fingerprint="", redactions={}, priority="normal", received_at=now, traceparent="", updated_at=now,
    )  # fmt: skip


def test_what_was_used_longest_ago_is_deleted_first():
    cache = StateCache(max_bytes=22_000)
    states = [a_task() for _ in range(3)]
    cache.put(states, {})
    cache.put([replace(states[0], version=1)], {states[0].task: 3000})
    assert cache.has_any([states[0].task])
    cache.put([a_task()], {})
    assert [cache.has_any([one.task]) for one in states] == [True, False, True]


def test_large_outputs_are_not_held():
    cache = StateCache()
    state = a_task()
    cache.put([state], {})
    row = StepRow("a", 0, "noop", "succeeded", 1, "intake", utc_now(), output={"large": 1}, output_sha256="f" * 64)
    cache.put([replace(state, steps={("a", 0): row})], {})
    assert not cache.has_any([state.task])
