"""One more run of a task and the end of dead letters, on a real Postgres and Redis."""

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from octollm.contracts import DeadDrop, StepDead, StepError, TaskRedrive, write
from octollm.contracts.ids import new_task_id, utc_now
from octollm.orchestrator.archive import Archive
from octollm.orchestrator.intake import InvalidMessage
from octollm.orchestrator.service import Orchestrator
from octollm.protocol.handoff import Entry, Handoff
from tests.helpers.callers import Reflex
from tests.helpers.commands import octollm
from tests.helpers.consumers import KEYS
from tests.helpers.orchestrators import (
    changed,
    dead_letter,
    done,
    entry_of,
    message_builder,
    result,
    rows,
    sends,
    status,
    submitted,
)
from tests.helpers.stored_tasks import accepted, finished, get, store_dead_letter

GONE: dict[str, Any] = {
    "outcome": "dead",
    "reason": "deliveries_exhausted",
    "error": StepError(code="deliveries_exhausted", message="gone"),
}


def wish(task: str, run: int = 1, tenant: str = "default") -> Entry:
    body = write(TaskRedrive(task=task, tenant=tenant, run=run, requested_at=utc_now()))
    return entry_of("task.redrive.v1", task, tenant, "", body, f"done {task}")


def drop(number: int, tenant: str = "default") -> Entry:
    body = write(DeadDrop(dead_letter=number, tenant=tenant, requested_at=utc_now()))
    return entry_of("dead.drop.v1", "", tenant, "", body, "dead 9-9")


async def dead(orchestrator: Orchestrator, pool: Any) -> tuple[str, Entry]:
    """A task whose left step was given up on, and its dead letter."""
    task = new_task_id("l0")
    left, _ = sends(*(await orchestrator.handle([submitted(task)])))
    gone = done(left, model=StepDead, **GONE)
    await orchestrator.handle([gone])
    await store_dead_letter(pool, f"{task} 1", b"{}", reason="deliveries_exhausted", id=f"{task}.1.left.0.1",
                 stage="after_admission", stream="{l0}:arm.noop:normal")  # fmt: skip
    return task, gone


async def test_a_redrive_is_a_run_of_its_own_and_the_one_before_is_history(orchestrator, pool, api):
    task, gone = await dead(orchestrator, pool)
    await pool.execute("UPDATE tasks SET indexed_at = now(), result_send_count = 3, purge_requested_at = now()")
    (before,) = await rows(pool, "SELECT * FROM tasks")
    # A step of the earlier run was in flight: the new run starts when that has stopped, see below.
    opened, again = await orchestrator.handle([wish(task), wish(task)])
    assert (status(opened).fields["state"], sends(opened), sends(again)) == ("accepted", [], [])
    assert await orchestrator.start_due(10, one_runs) == []
    (answer,) = await orchestrator.start_due(10, nobody)
    assert (status(answer).fields["state"], status(answer).fields["run"], status(answer).ttl_s > 3600) == (
        "running",
        "2",
        True,  # an ended task's status is kept for an hour here
    )
    assert status(answer).version > before["version"]
    assert [(step.run, step.step) for step in sends(answer)] == [(2, "left"), (2, "right")]
    (again,) = await orchestrator.handle([wish(task)])
    assert sends(again) == sends(answer)
    (row,) = await rows(pool, "SELECT * FROM tasks")
    names = (
        "result",
        "finished_at",
        "result_sent_at",
        "indexed_at",
        "result_send_count",
        "purge_requested_at",
        "reason",
    )
    assert [row[name] for name in names] == [None] * len(names)
    assert row["deadline_at"] > before["deadline_at"]
    (one,) = await rows(pool, "SELECT redriven_at, dropped_at FROM dead_letters")
    assert (one["redriven_at"] is not None, one["dropped_at"]) == (True, None)
    assert await get(api, "/v1/dead-letters") == {"items": [], "next": None}
    (shown,) = (await get(api, "/v1/dead-letters", all="true"))["items"]
    assert (shown["task"], shown["run"], "redriven_at" in shown) == (task, 1, True)
    # What was late of run 1 changes nothing; run 2 goes to its end.
    left, right = sends(answer)
    assert sends(*await orchestrator.handle([gone])) == []
    (both,) = sends(*await orchestrator.handle([done(left, {"n": 1}), done(right, {"n": 2})]))
    (last,) = await orchestrator.handle([done(both, {"sum": 3})])
    assert result(last) is not None
    assert (result(last).state, result(last).run) == ("succeeded", 2)
    runs = (await get(api, f"/v1/tasks/{task}/runs"))["items"]
    assert [(run["run"], run["state"]) for run in runs] == [(1, "failed"), (2, "succeeded")]
    places = [(item["run"], item["seq"]) for item in (await get(api, f"/v1/tasks/{task}/events"))["items"]]
    assert places == sorted(places)
    assert {1, 2} == {run for run, _ in places}
    assert (await get(api, f"/v1/tasks/{task}/attempts", run=1))["items"][0]["outcome"] == "dead"
    assert sends(*await orchestrator.handle([wish(task), wish(task, 2)])) == []


async def test_a_run_that_ends_and_its_redrive_in_one_transaction_are_both_stored(orchestrator, pool):
    task = new_task_id("l0")
    left, _ = sends(*(await orchestrator.handle([submitted(task)])))
    gone = done(left, model=StepDead, **GONE)
    ended, opened = await orchestrator.handle([gone, wish(task)])
    assert result(ended) is not None
    assert (result(ended).run, result(opened), len(sends(opened))) == (1, None, 0)
    (begun,) = await orchestrator.start_due(10, nobody)
    assert len(sends(begun)) == 2
    found = await rows(pool, "SELECT run, step, state FROM steps ORDER BY run, step")
    assert [tuple(row) for row in found] == [
        (1, "left", "dead"), (1, "right", "cancelled"), (2, "left", "sent"), (2, "right", "sent"),
    ]  # fmt: skip
    assert [row["run"] for row in await rows(pool, "SELECT run FROM attempts")] == [1]
    assert [row["run"] for row in await rows(pool, "SELECT run FROM runs ORDER BY run")] == [1, 2]


async def nobody(_task: str, _fields: Sequence[str]) -> int:
    return 0


async def one_runs(task: str, fields: Sequence[str]) -> int:
    """A step of the earlier run is executed; asked for every step of its plan, since an arm may have sent any."""
    assert sorted(fields) == [f"{task}.1.{step}.0" for step in ("both", "left", "right")]
    return 1


async def test_a_run_after_one_that_left_nothing_in_flight_starts_at_once(orchestrator, pool):
    task = new_task_id("l0")
    left, right = sends(*(await orchestrator.handle([submitted(task)])))
    await orchestrator.handle([done(right, {"n": 2}), done(left, model=StepDead, **GONE)])
    assert len(sends(*await orchestrator.handle([wish(task)]))) == 2


async def test_dead_letters_that_come_after_the_redrive_neither_stay_open_nor_end_the_new_run(orchestrator, pool):
    task, _ = await dead(orchestrator, pool)
    await orchestrator.handle([wish(task)])
    late = dead_letter("{l0}:arm.noop:normal", f"{task}.1.right.0.1", number=2)
    poison = dead_letter("{l0}:steps.done", f"{task}.1.left.0.1", number=3)
    request = dead_letter("{l0}:steps.done", task, number=4, type="task.redrive.v1")
    for answer in await Archive(pool, message_builder()).handle([late, poison, request]):
        assert answer == ()
    (row,) = await rows(pool, "SELECT state, run FROM tasks")
    assert tuple(row) == ("accepted", 2)
    assert len(await rows(pool, "SELECT * FROM dead_letters WHERE redriven_at IS NULL")) == 0
    await Archive(pool, message_builder()).handle([dead_letter("{l0}:steps.done", f"{task}.2.left.0.1", number=5)])
    (row,) = await rows(pool, "SELECT state, reason FROM tasks")
    assert tuple(row) == ("failed", "poison")


async def test_a_task_that_could_not_be_taken_in_runs_once_its_message_is_understood(orchestrator, pool):
    """After a bad deploy: the message is all there is, and it is in the dead letter."""
    task = new_task_id("l0")
    message = submitted(task, key="k-1", priority="high")
    given_up = dead_letter("{l0}:tasks:high", task, type="task.submitted.v1")
    given_up = changed(given_up, original=message.fields[b"body"])
    await Archive(pool, message_builder()).handle([given_up])
    assert sends(*await orchestrator.handle([wish(task, tenant="other")])) == []
    answers = await orchestrator.handle([wish(task)])
    assert [(step.run, step.priority) for step in sends(*answers)] == [(2, "high"), (2, "high")]
    (row,) = await rows(pool, "SELECT kind, source, priority, idempotency_key, submission FROM tasks")
    assert (row["kind"], row["source"], row["priority"], row["idempotency_key"]) == ("pair", "http", "high", "k-1")
    assert row["submission"]["input"] == {"n": 1}


async def test_what_cannot_be_taken_in_even_now_stays_failed(orchestrator, pool):
    task = new_task_id("l0")
    await Archive(pool, message_builder()).handle([dead_letter("{l0}:tasks:normal", task, type="task.submitted.v1")])
    assert sends(*await orchestrator.handle([wish(task)])) == []
    (row,) = await rows(pool, "SELECT state, run FROM tasks")
    assert tuple(row) == ("failed", 1)


async def test_others_unknown_and_unreadable_wishes_change_nothing(orchestrator, pool):
    task, _ = await dead(orchestrator, pool)
    unreadable = entry_of("task.redrive.v1", task, "default", "", b"{}", "x")
    foreign, unknown, wrong = await orchestrator.handle(
        [wish(task, tenant="other"), wish(new_task_id("l0")), unreadable]
    )
    assert (sends(foreign, unknown), isinstance(wrong, InvalidMessage)) == ([], True)
    (row,) = await rows(pool, "SELECT state, run FROM tasks")
    assert tuple(row) == ("failed", 1)


async def test_a_dropped_dead_letter_is_kept_and_no_longer_listed(orchestrator, pool, api):
    await store_dead_letter(pool, "1-1", b"x")
    (item,) = (await get(api, "/v1/dead-letters"))["items"]
    archive = Archive(pool, message_builder())
    assert await archive.handle([drop(item["id"], "other")]) == [()]
    assert len((await get(api, "/v1/dead-letters"))["items"]) == 1
    assert await archive.handle([drop(item["id"]), drop(item["id"]), drop(10**9)]) == [()] * 3
    assert (await get(api, "/v1/dead-letters"))["items"] == []
    (kept,) = (await get(api, "/v1/dead-letters", all="true"))["items"]
    assert "dropped_at" in kept
    assert "dropped_at" in await get(api, f"/v1/dead-letters/{item['id']}")
    (wrong,) = await archive.handle([entry_of("dead.drop.v1", "", "default", "", b"{}", "x")])
    assert isinstance(wrong, InvalidMessage)


@pytest.mark.parametrize("claimed", ["", "Not A Tenant", "x" * 300])
async def test_what_is_nobodys_is_the_operators_to_see_and_to_drop(pool, api, claimed):
    archive = Archive(pool, message_builder())
    await archive.handle([dead_letter("{l0}:tasks:normal", "", tenant=claimed)._replace(id="1-1")])
    (item,) = (await get(api, "/v1/dead-letters"))["items"]
    assert (item["tenant"], item["reason"], "task" in item) == ("", "deliveries_exhausted", False)
    others = await api.get("/v1/dead-letters", auth=Reflex("other"))
    assert others.json()["items"] == []
    path = f"/v1/dead-letters/{item['id']}"
    assert (await api.get(path, auth=Reflex("other"))).status_code == 404
    assert (await get(api, path))["dead_letter"]["tenant"] == claimed
    await archive.handle([drop(item["id"], "other")])
    assert len((await get(api, "/v1/dead-letters"))["items"]) == 1
    await archive.handle([drop(item["id"])])
    assert (await get(api, "/v1/dead-letters"))["items"] == []


async def test_the_script_ends_the_earlier_run_and_knows_who_may_ask(client):
    ingress, task = Handoff(client, "l0", "", "ingress"), new_task_id("l0")
    message: dict[str, str | bytes] = {"type": "task.redrive.v1", "id": task, "body": orjson.dumps({})}

    async def asked(state: str | None, run: int = 1, tenant: str = "default") -> tuple[str, str]:
        await client.flushall()
        if state is not None:
            await client.hset(KEYS.status(task), mapping={"tenant": "default", "state": state, "run": "1"})
        return await ingress.redrive(task, tenant, run, 60, message)

    for state in ("failed", "expired", None):
        assert await asked(state) == ("accepted", state or "")
        assert await client.zrange(KEYS.ended_runs, 0, -1) == [f"{task}.1 default".encode()]
        assert await client.xlen(KEYS.done) == 1
    for state in ("accepted", "running", "succeeded", "rejected", "cancelled"):
        assert await asked(state) == ("unchanged", state)
        assert (await client.exists(KEYS.ended_runs), await client.xlen(KEYS.done)) == (0, 0)
    assert await asked("failed", run=2) == ("unchanged", "failed")
    assert await asked("failed", tenant="other") == ("other_tenant", "")
    assert await client.xlen(KEYS.done) == 0


async def test_in_bulk_it_is_looked_at_first_and_asked_for_only_with_a_yes(api, monkeypatch, orchestrator, pool):
    """Against the API alone: it refuses commands, so that nothing is asked for unnoticed."""
    monkeypatch.setenv("OCTOLLM_REFLEX_URL", str(api.base_url).rstrip("/"))
    await store_dead_letter(pool, "1-1", b"x")
    task, _ = await dead(orchestrator, pool)
    shown = await octollm("dead", "redrive", "--since", "1h", "--dry-run", "--json")
    items = orjson.loads(shown.stdout)["items"]
    assert ([item["task"] for item in items], shown.exit_code) == ([task, None], 0)
    unsure = await octollm("dead", "drop", "--reason", "malformed")
    assert (unsure.exit_code, "--yes" in unsure.stderr) == (2, True)
    assert "no dead letters match" in (await octollm("dead", "drop", "--reason", "schema", "--yes")).stderr
    for arguments in (("redrive",), ("drop",), ("redrive", "1", "--task", task), ("redrive", "0"), ("drop", "x")):
        assert (await octollm("dead", *arguments)).exit_code == 2
    assert "there is no dead letter 99" in str((await octollm("dead", "redrive", "99")).exception)
    unreadable = str(items[1]["dead_letter"])
    no_task = await octollm("dead", "redrive", unreadable)
    assert (no_task.exit_code, "belongs to no task" in no_task.stdout) == (1, True)


@pytest.mark.parametrize("state", ["running", "succeeded"])
async def test_what_runs_or_has_succeeded_is_left_alone(orchestrator, pool, state):
    task = await (accepted(orchestrator) if state == "running" else finished(orchestrator, pool))
    (left,) = await orchestrator.handle([wish(task)])
    assert sends(left) == []
    (row,) = await rows(pool, "SELECT state, run FROM tasks")
    assert tuple(row) == (state, 1)
