"""Deadlines on a real Postgres: exact, by the database's clock, and one bad task costs only itself."""

import asyncio
import time
from time import monotonic

import pytest

from octollm.contracts.ids import later, new_task_id, utc_now
from octollm.orchestrator.decide import decide
from octollm.orchestrator.maintenance import Maintenance
from octollm.periodic import Alarm, PeriodicJob, run_periodically
from octollm.protocol.operations import EndRun
from tests.helpers.consumers import topology
from tests.helpers.orchestrators import cancel, done, message_builder, operations, rows, sends, status, submitted
from tests.helpers.publishers import FakePublisher
from tests.helpers.waiting import until


async def overdue(pool, task):
    await rows(pool, f"UPDATE tasks SET deadline_at = now() - interval '1 ms' WHERE id = '{task}' RETURNING 1")


@pytest.mark.parametrize("cached", [True, False])
async def test_a_result_that_is_committed_after_the_deadline_does_not_save_the_task(
    orchestrator, another, pool, cached
):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task)]))
    (both,) = sends(*await orchestrator.handle([done(left, {"n": 1}), done(right, {"n": 2})]))
    if cached:
        state = orchestrator._cache._states[task].state
        object.__setattr__(state, "deadline_at", later(utc_now(), -1))
    else:
        await overdue(pool, task)
    (answer,) = await (orchestrator if cached else another).handle([done(both, {"sum": 3})])
    found = status(answer)
    assert found is not None
    assert (found.fields["state"], found.fields["reason"]) == ("expired", "deadline")


async def test_any_event_ends_an_overdue_task_and_stops_what_is_in_flight(orchestrator, pool):
    for event in (lambda task, _: submitted(task), lambda task, _: cancel(task), lambda _, step: done(step, {"n": 1})):
        task = new_task_id("l0")
        left, _ = sends(*await orchestrator.handle([submitted(task)]))
        orchestrator._cache._states.clear()
        await overdue(pool, task)
        (answer,) = await orchestrator.handle([event(task, left)])
        assert status(answer).fields["state"] == "expired"
        assert [one.run for one in operations(answer) if isinstance(one, EndRun)] == [f"{task}.1"]


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_process_whose_clock_is_an_hour_off_neither_expires_nor_keeps_a_task(
    orchestrator, pool, monkeypatch, hours
):
    fresh, old = new_task_id("l0"), new_task_id("l0")
    entries = [submitted(fresh), submitted(old)]
    monkeypatch.setattr("octollm.contracts.ids.time.time_ns", clock_off_by(hours))
    (first, _, *_) = sends(*await orchestrator.handle(entries))
    await overdue(pool, old)
    (ended,) = await orchestrator.expire(10)
    assert (ended.state.task, ended.state.state) == (old, "expired")
    (answer,) = await orchestrator.handle([done(first, {"n": 1})])
    assert status(answer).fields["state"] == "running"


def clock_off_by(hours):
    real = time.time_ns
    return lambda: real() + hours * 3600 * 10**9


async def test_a_deadline_is_met_within_milliseconds_and_not_at_the_next_look(orchestrator, pool):
    maintenance = Maintenance(orchestrator, pool, topology(), message_builder(), FakePublisher())
    job = next(one for one in maintenance.jobs(3600, 0, 3600) if one.name == "expire tasks")
    # The job looks rarely here: only the alarm can be in time.
    running = asyncio.create_task(run_periodically(job._replace(interval_s=3600)))
    try:
        await orchestrator.handle([submitted(new_task_id("l0"), deadline_s=1)])

        async def expired():
            return bool(await rows(pool, "SELECT 1 FROM tasks WHERE state = 'expired'"))

        async with asyncio.timeout(60):
            await until(expired)
    finally:
        running.cancel()
    (row,) = await rows(pool, "SELECT extract(epoch FROM finished_at - deadline_at)::float8 AS late FROM tasks")
    assert 0 <= row["late"] < 1


async def test_an_alarm_runs_a_job_early_and_the_earliest_counts():
    alarm, runs = Alarm(), asyncio.Queue[float]()

    async def run():
        await runs.put(monotonic())

    job = asyncio.create_task(run_periodically(PeriodicJob("j", 3600, run, alarm)))
    try:
        async with asyncio.timeout(30):
            for seconds in ((1000, 0.05), (0.05, 1000), (-1,)):
                for one in seconds:
                    alarm.set_in(one)
                await runs.get()
    finally:
        job.cancel()


async def broken(monkeypatch, task):
    """The orchestrator's own code fails on this task."""
    real = decide

    def failing(state, event, now):
        if state.task == task and type(event).__name__ != "Unprocessable":
            raise OverflowError("cannot convert float infinity to integer")
        return real(state, event, now)

    monkeypatch.setattr("octollm.orchestrator.service.decide", failing)
    monkeypatch.setattr("octollm.orchestrator.batch.decide", failing)


async def test_a_task_that_cannot_be_expired_or_started_fails_with_its_cause_and_stops_no_other(
    orchestrator, pool, monkeypatch
):
    tasks = [new_task_id("l0") for _ in range(6)]
    soon = later(utc_now(), 3600)
    await orchestrator.handle([submitted(task) for task in tasks[:3]])
    await orchestrator.handle([submitted(task, not_before=soon) for task in tasks[3:]])
    maintenance = Maintenance(orchestrator, pool, topology(), message_builder(), FakePublisher())
    for bad, run in ((tasks[1], maintenance.expire_tasks), (tasks[4], maintenance.start_due_runs)):
        monkeypatch.undo()
        await broken(monkeypatch, bad)
        if bad == tasks[1]:
            await rows(
                pool, "UPDATE tasks SET deadline_at = now() - interval '1 s' WHERE not_before IS NULL RETURNING 1"
            )
        else:
            await rows(
                pool, "UPDATE tasks SET not_before = now() - interval '1 s' WHERE state = 'accepted' RETURNING 1"
            )
        await run()
    found = await rows(pool, "SELECT id, state, reason, detail, kind, status_pending FROM tasks")
    ends = {row["id"]: row for row in found}
    assert [ends[task]["state"] for task in tasks] == ["expired", "failed", "expired", "running", "failed", "running"]
    for bad in (tasks[1], tasks[4]):
        assert (ends[bad]["reason"], ends[bad]["kind"]) == ("poison", "pair")
        assert "OverflowError: cannot convert float infinity" in ends[bad]["detail"]
    assert {row["status_pending"] for row in found} == {None}


async def test_a_decision_that_cannot_be_published_fails_its_task_and_the_others_are_published(orchestrator, pool):
    bad, good = new_task_id("l0"), new_task_id("l0")
    soon = later(utc_now(), 3600)
    await orchestrator.handle([submitted(task, not_before=soon) for task in (bad, good)])
    await rows(pool, "UPDATE tasks SET not_before = now() - interval '1 s' RETURNING 1")

    class Refusing(FakePublisher):
        async def publish(self, lane, *groups):
            if any(bad in str(one) and "running" in str(one) for one in groups):
                raise ValueError("WRONGTYPE")

    await Maintenance(orchestrator, pool, topology(), message_builder(), Refusing()).start_due_runs()
    found = {row["id"]: row for row in await rows(pool, "SELECT id, state, detail FROM tasks")}
    assert (found[bad]["state"], found[good]["state"]) == ("failed", "running")
    assert "ValueError: WRONGTYPE" in found[bad]["detail"]


async def test_a_message_that_fails_alone_twice_ends_its_task_with_the_cause(orchestrator, pool, monkeypatch):
    bad, good, late = (new_task_id("l0") for _ in range(3))
    left, _ = sends(*await orchestrator.handle([submitted(late)]))
    await broken(monkeypatch, bad)
    first, other = await orchestrator.handle([submitted(bad), submitted(good)])
    assert isinstance(first, OverflowError)
    assert status(other).fields["state"] == "running"
    (answer,) = await orchestrator.handle([submitted(bad)._replace(delivery=2)])
    assert (status(answer).fields["state"], status(answer).fields["reason"]) == ("failed", "poison")
    (row,) = await rows(pool, f"SELECT kind, submission, detail FROM tasks WHERE id = '{bad}'")
    assert (row["kind"], row["submission"]["goal"]) == ("pair", "pair")
    assert "OverflowError" in row["detail"]
    # A request about a task is no part of it.
    await broken(monkeypatch, late)
    (error,) = await orchestrator.handle([cancel(late)._replace(delivery=2)])
    assert isinstance(error, OverflowError)
    (answer,) = await orchestrator.handle([done(left, {"n": 1})._replace(delivery=2)])
    assert status(answer).fields["state"] == "failed"
