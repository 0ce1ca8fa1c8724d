"""The orchestrator on a real Postgres: what it stores, what it sends, and what a repeat, a race or a fault changes."""

import asyncio

import orjson
import pytest

from octollm.contracts import (
    DeadLetter,
    StepError,
    StepFailed,
    StepSucceeded,
    StoredOutput,
    write,
)
from octollm.contracts.ids import message_id, new_task_id, utc_now
from octollm.database.outputs import store_output
from octollm.database.pool import transaction
from octollm.errors import StoreUnavailableError
from octollm.orchestrator.archive import Archive
from octollm.orchestrator.intake import InvalidMessage
from octollm.orchestrator.reconciler import Reconciler
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import load_recipes
from octollm.protocol.handoff import Entry
from tests.helpers.orchestrators import (
    RECIPES,
    changed,
    done,
    entry_of,
    message_builder,
    rows,
    sends,
    status,
    submitted,
)
from tests.helpers.publishers import FakePublisher


async def test_a_task_runs_to_its_end_and_its_result_is_stored(orchestrator, pool):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task)]))
    assert (left.step, left.input, right.input) == ("left", {"n": 1}, {"side": "right"})
    assert sends(*await orchestrator.handle([done(left, {"n": 1})])) == []
    (both,) = sends(*await orchestrator.handle([done(right, {"n": 2})]))
    assert both.input == {"sum": [1, 2]}
    (last,) = await orchestrator.handle([done(both, both.input)])
    assert status(last).fields["state"] == "succeeded"
    (row,) = await rows(pool, "SELECT * FROM tasks")
    assert (row["state"], row["result"]["answer"]) == ("succeeded", [1, 2])
    assert [one["attempt"] for one in await rows(pool, "SELECT * FROM attempts")] == [1, 1, 1]
    seen = [one["body"]["event"] for one in await rows(pool, "SELECT * FROM events ORDER BY seq")]
    assert seen[:2] == ["accepted", "planned"]
    assert seen[-1] == "finished"


async def test_both_sides_of_a_join_in_one_transaction_send_what_follows_once(orchestrator):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task)]))
    answers = await orchestrator.handle([done(left, {"n": 1}), done(right, {"n": 2}), done(left, {"n": 9})])
    assert [one.step for one in sends(*answers)] == ["both"]
    assert sends(*answers)[0].input == {"sum": [1, 2]}


async def test_two_orchestrators_join_the_same_task_once(orchestrator, pool):
    for _ in range(10):
        task = new_task_id("l0")
        left, right = sends(*await orchestrator.handle([submitted(task)]))
        answers = await asyncio.gather(
            orchestrator.handle([done(left, {"n": 1})]), orchestrator.handle([done(right, {"n": 2})])
        )
        assert [one.step for one in sends(*answers[0], *answers[1])] == ["both"]


async def test_an_event_met_again_changes_nothing_and_sends_again_what_it_sent(orchestrator, pool):
    task = new_task_id("l0")
    first = sends(*await orchestrator.handle([submitted(task)]))
    assert sends(*await orchestrator.handle([submitted(task)])) == first
    await orchestrator.handle([done(first[0], {"n": 1})])
    last = done(first[1], {"n": 2})
    (both,) = sends(*await orchestrator.handle([last]))
    before = await rows(pool, "SELECT * FROM tasks")
    assert sends(*await orchestrator.handle([last])) == [both]
    assert await rows(pool, "SELECT * FROM tasks") == before
    # Not what other events sent, and nothing that has ended.
    assert sends(*await orchestrator.handle([done(first[0], {"n": 7})])) == []
    assert sends(*await orchestrator.handle([submitted(task)])) == []


async def test_a_result_of_an_older_attempt_is_refused(orchestrator, pool):
    task = new_task_id("l0")
    left, _ = sends(*await orchestrator.handle([submitted(task)]))
    newer = left.model_copy(update={"attempt": 2})
    assert sends(*await orchestrator.handle([done(newer, {"n": 2})])) == []
    await orchestrator.handle([done(left, {"n": 1})])
    (row,) = await rows(pool, "SELECT * FROM steps WHERE step = 'left'")
    assert (row["attempt"], row["output"]) == (2, {"n": 2})


async def test_a_failed_step_ends_the_task_and_later_results_change_nothing(orchestrator, pool):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task)]))
    error = StepError(code="no_use", message="it cannot work")
    (answer,) = await orchestrator.handle([done(left, model=StepFailed, outcome="failed", error=error)])
    assert (status(answer).fields["state"], status(answer).fields["reason"]) == ("failed", "step_failed")
    assert "it cannot work" in str(status(answer).fields["detail"])
    assert sends(*await orchestrator.handle([done(right, {"n": 2})])) == []
    (row,) = await rows(pool, "SELECT * FROM tasks")
    assert row["state"] == "failed"


@pytest.mark.parametrize(
    ("submission", "reason"),
    [
        ({"kind": None}, "needs_model"),
        ({"kind": "unheard-of"}, "unknown_kind"),
        ({"input": {"n": "one"}}, "invalid_input"),
        ({"input": {"m": 1}}, "invalid_input"),
    ],
)
async def test_what_cannot_be_planned_is_rejected_with_its_reason(orchestrator, submission, reason):
    (answer,) = await orchestrator.handle([submitted(new_task_id("l0"), **submission)])
    assert (status(answer).fields["state"], status(answer).fields["reason"]) == ("rejected", reason)
    assert sends(answer) == []


async def test_the_second_task_with_a_key_is_a_duplicate_also_within_one_batch(orchestrator, pool):
    one, two, three = (new_task_id("l0") for _ in range(3))
    answers = await orchestrator.handle([submitted(one, key="k"), submitted(two, key="k")])
    answers += await orchestrator.handle([submitted(three, key="k")])
    states = [status(answer).fields["state"] for answer in answers]
    assert states == ["running", "rejected", "rejected"]
    (row,) = await rows(pool, f"SELECT * FROM tasks WHERE id = '{three}'")
    assert (row["reason"], one in row["detail"]) == ("duplicate", True)
    # An expired key is free again, and a redelivery of the holder is no duplicate.
    assert len(sends(*await orchestrator.handle([submitted(one, key="k")]))) == 2
    await rows(pool, "UPDATE idempotency SET expires_at = now() - interval '1 s' RETURNING 1")
    assert len(sends(*await orchestrator.handle([submitted(new_task_id("l0"), key="k")]))) == 2


async def test_an_unreadable_message_costs_only_itself(orchestrator):
    task = new_task_id("l0")
    bad = changed(submitted(new_task_id("l0")), body=b'{"task": 5}')
    strange = changed(bad, type=b"task.event.v1")
    answers = await orchestrator.handle([bad, submitted(task), strange])
    assert isinstance(answers[0], InvalidMessage)
    assert answers[0].reason == "schema"
    assert len(sends(answers[1])) == 2
    assert isinstance(answers[2], InvalidMessage)
    assert answers[2].reason == "misrouted"


async def test_a_message_that_breaks_the_transaction_costs_only_itself(orchestrator):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task)]))
    # The arm says that its output is stored, and it is not.
    lost = done(left, {})
    body = orjson.loads(lost.fields[b"body"])
    body["output"] = {"at": "postgres", "sha256": "0" * 64, "bytes": 70000}
    answers = await orchestrator.handle([changed(lost, body=orjson.dumps(body)), done(right, {"n": 2})])
    assert isinstance(answers[0], KeyError)


async def test_a_large_output_travels_by_reference_and_is_seen_by_later_steps(orchestrator, pool):
    task = new_task_id("l0")
    left, right = sends(*await orchestrator.handle([submitted(task)]))
    raw = orjson.dumps({"n": "x" * 100_000})
    async with transaction(pool) as connection:
        await store_output(connection, "default", "a" * 64, raw)
        await store_output(connection, "default", "a" * 64, raw)
    stored = StoredOutput(at="postgres", sha256="a" * 64, bytes=len(raw))
    await orchestrator.handle([done(left, model=StepSucceeded, outcome="succeeded", output=stored)])
    (both,) = sends(*await orchestrator.handle([done(right, {"n": 2})]))
    assert both.input == {"sum": ["x" * 100_000, 2]}
    (row,) = await rows(pool, "SELECT * FROM steps WHERE step = 'left'")
    assert (row["output"], row["output_sha256"]) == (None, "a" * 64)


async def test_an_overdue_task_expires_once(orchestrator, pool):
    task = new_task_id("l0")
    await orchestrator.handle([submitted(task)])
    assert await orchestrator.expire(10) == []
    await rows(pool, "UPDATE tasks SET deadline_at = now() - interval '1 s' RETURNING 1")
    (answer,) = await orchestrator.expire(10)
    assert (status(answer).fields["state"], status(answer).fields["reason"]) == ("expired", "deadline")
    assert await orchestrator.expire(10) == []


async def test_a_lost_message_is_sent_again_with_a_higher_attempt(orchestrator, pool):
    task = new_task_id("l0")
    await orchestrator.handle([submitted(task)])

    async def exists(in_flight: str) -> bool:
        return ".right." in in_flight

    publisher = FakePublisher(exists)
    assert await Reconciler(pool, message_builder(), publisher, 3600).run(10) == 0
    await rows(pool, "UPDATE steps SET sent_at = now() - interval '1 h' RETURNING 1")
    reconciler = Reconciler(pool, message_builder(), publisher, 60)
    assert await reconciler.run(10) == 1
    assert [(step.step, step.attempt) for step in publisher.republished] == [("left", 2)]
    assert await reconciler.run(10) == 0
    assert publisher.claimed == ["left"]


async def test_a_step_that_ends_while_it_is_checked_is_not_claimed(orchestrator, pool):
    task = new_task_id("l0")
    (left, _right) = sends(*await orchestrator.handle([submitted(task)]))
    await rows(pool, "UPDATE steps SET sent_at = now() - interval '1 h' RETURNING 1")

    async def exists(in_flight: str) -> bool:
        if ".left." in in_flight:
            await orchestrator.handle([done(left, {"n": 1})])
        return ".right." in in_flight

    publisher = FakePublisher(exists)
    assert await Reconciler(pool, message_builder(), publisher, 60).run(10) == 0
    assert (publisher.claimed, publisher.republished) == ([], [])


async def test_the_archive_stores_dead_letters_once_and_ends_a_poisoned_task(orchestrator, pool):
    known, unknown = new_task_id("l0"), new_task_id("l0")
    left, _ = sends(*await orchestrator.handle([submitted(known)]))
    archive = Archive(pool, message_builder())

    def dead_letter(number: int, stream: str, ident: str) -> Entry:
        body = DeadLetter(
            reason="deliveries_exhausted",
            message="delivered 5 times without an end",
            stage="after_admission",
            stream=stream,
            group="g",
            entry="1-1",
            consumer="c",
            delivery=5,
            type="x",
            id=ident,
            tenant="default",
            bytes=3,
            at=utc_now(),
        )
        return entry_of("dead.dead_letter.v1", ident, "default", "", write(body), f"dead {number}", b"\xff\x00!")

    step = message_id(known, 1, "left", 0, 1)
    quiet = await archive.handle([dead_letter(1, "{l0}:arm.noop:normal", step)] * 2)
    assert [status(answer) for answer in quiet] == [None, None]
    (one,) = await archive.handle([dead_letter(2, "{l0}:steps.done", step)])
    (two,) = await archive.handle([dead_letter(3, "{l0}:tasks:normal", unknown)])
    for answer, task in ((one, known), (two, unknown)):
        assert (status(answer).fields["task"], status(answer).fields["reason"]) == (task, "poison")
    stored = await rows(pool, "SELECT * FROM dead_letters ORDER BY id")
    assert [(row["message_id"], row["original"]) for row in stored] == [(f"dead {n}", b"\xff\x00!") for n in (1, 2, 3)]
    assert sends(*await orchestrator.handle([done(left, {"n": 1})])) == []


async def test_a_lost_connection_means_transient(orchestrator, pool, dsn):
    await orchestrator.handle([submitted(new_task_id("l0"))])
    await pool.close()
    with pytest.raises(StoreUnavailableError):
        await orchestrator.handle([submitted(new_task_id("l0"))])


WHOLE = """
recipe: whole
version: 1
description: the second step's input is all that the first one gave
deadline_s: 60
input: {type: object}
steps:
  first: {arm: noop, input: {}}
  second: {arm: noop, needs: [first], input: {$: steps.first.output.all}}
answer: {$: "to_number(steps.second.output.text)"}
"""


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"all": [1]}, "found an array"),
        ({"all": {"text": "9" * 30}}, "answer: the value that its references give cannot be stored"),
    ],
)
async def test_references_that_no_message_can_carry_end_their_task_and_cost_no_other_one(pool, tmp_path, output, said):
    for name, recipe in (("pair", RECIPES), ("whole", WHOLE)):
        (tmp_path / f"{name}.yaml").write_text(recipe)
    orchestrator = Orchestrator(pool, load_recipes(tmp_path, frozenset({"noop"})), message_builder(), 3600)
    task, other = new_task_id("l0"), new_task_id("l0")
    first, left, right = sends(*await orchestrator.handle([submitted(task, kind="whole"), submitted(other)]))
    answers = await orchestrator.handle([done(left, {"n": 1}), done(first, output), done(right, {"n": 2})])
    assert all(isinstance(answer, tuple) for answer in answers)
    for step in sends(*answers):
        await orchestrator.handle([done(step, step.input)])
    found = {row["id"]: row for row in await rows(pool, "SELECT * FROM tasks")}
    assert (found[task]["state"], found[task]["reason"]) == ("failed", "plan_invalid")
    assert said in found[task]["detail"]
    assert found[other]["state"] == "succeeded"
