"""What the API answers about tasks that the real orchestrator made."""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import orjson

from octollm.client import AsyncClient
from octollm.contracts import TaskEvent, TaskStatus, read
from tests.helpers.orchestrators import rows
from tests.helpers.stored_tasks import (
    LARGE_SHA256,
    accepted,
    failed,
    finished,
    get,
    model_call,
    store_dead_letter,
    walk,
)


async def status(api, task: str) -> TaskStatus:
    answer = await api.get(f"/v1/tasks/{task}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    return read(TaskStatus, answer.content)


async def test_a_status_is_a_task_status_with_open_steps_and_then_the_result(api, orchestrator, pool):
    task = await accepted(orchestrator)
    running = await status(api, task)
    assert (running.state, running.stored, running.result) == ("running", True, None)
    assert [(step.step, step.arm) for step in running.open or ()] == [("left", "noop"), ("right", "noop")]
    ended = await status(api, await finished(orchestrator, pool))
    assert (ended.state, ended.open) == ("succeeded", None)
    assert ended.result is not None
    assert ended.result.answer == 2
    broken = await status(api, await failed(orchestrator))
    assert (broken.state, broken.reason, broken.open) == ("failed", "step_failed", None)


async def test_a_submission_and_the_inputs_of_steps_can_be_read_as_stored(api, orchestrator, pool):
    metadata, given = {"order": "A-17"}, {"n": 1}
    task = await accepted(orchestrator, metadata=metadata, input=given)
    found = await get(api, f"/v1/tasks/{task}")
    assert (found["metadata"], "submission" in found) == (metadata, False)
    found = await get(api, f"/v1/tasks/{task}", include="submission")
    assert found["submission"] == {"goal": "pair", "kind": "pair", "metadata": metadata, "input": given}
    read(TaskStatus, orjson.dumps(found))
    answer = await api.get(f"/v1/tasks/{task}", params={"include": "all"})
    assert answer.status_code == 422
    steps = (await get(api, f"/v1/tasks/{task}/steps"))["items"]
    (plan,) = [one["plan"] for one in (await get(api, f"/v1/tasks/{task}/runs"))["items"]]
    inputs = {step["name"]: step["input"] for step in plan["steps"]}
    assert {step["step"]: step["input"] for step in steps} == {name: inputs[name] for name in ("left", "right")}
    without = await get(api, f"/v1/tasks/{await accepted(orchestrator)}")
    assert "metadata" not in without


async def test_tasks_are_listed_newest_first_and_narrowed(api, orchestrator, pool):
    running = await accepted(orchestrator, goal="Count 100% of THE penguins")
    ended = await finished(orchestrator, pool)
    wrong = await failed(orchestrator)
    unknown = await accepted(orchestrator, kind="unheard-of", priority="high")

    async def listed(**filters: Any) -> list[str]:
        return [item["task"] for item in (await get(api, "/v1/tasks", **filters))["items"]]

    assert await listed() == [unknown, wrong, ended, running]
    assert await listed(state="failed") == [wrong]
    assert await listed(state="running", kind="pair") == [running]
    assert await listed(kind="unheard-of") == [unknown]
    assert await listed(source="http", priority="high") == [unknown]
    assert await listed(source="github") == []
    assert await listed(text="100% of the P") == [running]
    assert await listed(text="100_") == []
    moment = (await get(api, f"/v1/tasks/{ended}"))["created_at"]
    assert ended in await listed(since=moment)
    assert running not in await listed(since=moment)
    assert ended not in await listed(until=moment)
    (item,) = (await get(api, "/v1/tasks", state="failed"))["items"]
    assert item == {
        "task": wrong, "tenant": "default", "kind": "pair", "state": "failed", "reason": "step_failed",
        "detail": "step left: it broke", "source": "http", "priority": "normal", "goal": "pair", "run": 1,
        "created_at": item["created_at"], "updated_at": item["updated_at"], "deadline_at": item["deadline_at"],
    }  # fmt: skip


async def test_pages_neither_lose_nor_repeat_a_task_while_others_arrive(api, orchestrator, pool):
    tasks = [await accepted(orchestrator) for _ in range(7)]
    # All within one moment: only the id tells them apart.
    await rows(pool, "UPDATE tasks SET received_at = '2026-01-31T12:00:00.123456Z' RETURNING 1")
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await get(api, "/v1/tasks", limit=2, **cursor)
        found += [item["task"] for item in page["items"]]
        await accepted(orchestrator)  # newer than all that were there
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    assert found == sorted(tasks, reverse=True)
    assert len(await walk(api, "/v1/tasks", limit=3)) == 7 + 4


async def test_steps_and_attempts_tell_who_tried_and_what_came_of_it(api, orchestrator, pool):
    task = await finished(orchestrator, pool)
    steps = await walk(api, f"/v1/tasks/{task}/steps", limit=1)
    assert steps == (await get(api, f"/v1/tasks/{task}/steps", run=1))["items"]
    by_name = {step["step"]: step for step in steps}
    assert list(by_name) == ["both", "left", "right"]
    assert by_name["both"]["output"] == {"sum": 2}
    assert (by_name["left"]["attempt"], by_name["left"]["failures"], by_name["left"]["state"]) == (2, 1, "succeeded")
    assert by_name["right"]["output_sha256"] == LARGE_SHA256
    assert "output" not in by_name["right"]
    attempts = await walk(api, f"/v1/tasks/{task}/attempts", limit=1)
    assert attempts == (await get(api, f"/v1/tasks/{task}/attempts"))["items"]
    tried = sorted((one["step"], one["attempt"], one["outcome"]) for one in attempts)
    assert tried == [
        ("both", 1, "succeeded"), ("left", 1, "retrying"), ("left", 2, "succeeded"), ("right", 1, "succeeded"),
    ]  # fmt: skip
    assert {one.get("error_message") for one in attempts} == {None, "try later"}
    assert {one["outcome"]: one.get("error_class") for one in attempts} == {"retrying": "transient", "succeeded": None}
    for part in ("steps", "attempts"):
        assert await get(api, f"/v1/tasks/{task}/{part}", run=2) == {"items": [], "next": None}


async def test_events_are_those_of_the_contract_and_go_on_after_any(api, orchestrator, pool):
    task = await finished(orchestrator, pool)
    items = (await get(api, f"/v1/tasks/{task}/events"))["items"]
    events = [read(TaskEvent, orjson.dumps(item)) for item in items]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (events[0].event, events[-1].event) == ("accepted", "finished")
    assert await walk(api, f"/v1/tasks/{task}/events", by="after", limit=3) == items
    assert (await get(api, f"/v1/tasks/{task}/events", after="1-4"))["items"] == items[4:]
    last = f"1-{len(items)}"
    assert await get(api, f"/v1/tasks/{task}/events", after=last) == {"items": [], "next": None}
    page = await get(api, f"/v1/tasks/{task}/events", limit=2)
    assert (set(page), page["next"]) == ({"items", "next"}, "1-2")


async def test_runs_each_have_their_plan_and_their_end(api, orchestrator, pool):
    task = await failed(orchestrator)
    again = {"task": task, "run": 2, "seq": 1, "tenant": "default", "at": "2026-01-31T12:00:00.000Z"}
    again["event"] = "planned"
    await pool.execute("INSERT INTO runs SELECT task, 2, plan FROM runs")
    await pool.execute("INSERT INTO events VALUES ($1, 2, 1, now(), $2)", task, again)
    await pool.execute("UPDATE tasks SET run = 2, state = 'running', reason = NULL, detail = NULL, result = NULL")
    runs = await walk(api, f"/v1/tasks/{task}/runs", limit=1)
    assert [(run["run"], run["state"], run.get("reason")) for run in runs] == [
        (1, "failed", "step_failed"), (2, "running", None),
    ]  # fmt: skip
    assert runs[0]["plan"]["recipe"] == "pair"
    assert ("finished_at" in runs[0], "finished_at" in runs[1]) == (True, False)
    assert (await get(api, f"/v1/tasks/{task}/events", after="1-5"))["items"][-1] == again
    first = await get(api, f"/v1/tasks/{task}/provenance", run=1)
    assert (first["run"], first["runs"], first["result"]["state"], "answer" in first["result"]) == (
        1, 2, "failed", False,
    )  # fmt: skip
    assert "result" not in await get(api, f"/v1/tasks/{task}/provenance")
    rejected = await accepted(orchestrator, kind="unheard-of")
    (only,) = await walk(api, f"/v1/tasks/{rejected}/runs")
    assert (only["state"], only["reason"], "plan" in only) == ("rejected", "unknown_kind", False)


async def test_provenance_says_who_what_when_and_how(api, orchestrator, pool):
    task = await finished(orchestrator, pool)
    await model_call(pool, task)
    await model_call(pool, task, call=2, cost_usd=None)
    await model_call(pool, task, step="nowhere", purpose="plan")
    await model_call(pool, task, run=2)
    found = await get(api, f"/v1/tasks/{task}/provenance")
    assert (found["kind"], found["goal"], found["run"], found["runs"]) == ("pair", "pair", 1, 1)
    assert found["admission"]["fingerprint"] == "0" * 64
    assert found["plan"]["recipe"] == "pair"
    steps = {step["step"]: step for step in found["steps"]}
    assert [step["step"] for step in found["steps"]][-1] == "both"
    assert steps["both"]["needs"] == ["left", "right"]
    assert steps["both"]["references"] == ["[steps.left.output.n, steps.right.output.n]"]
    assert steps["both"]["sent_by"].startswith(f"{task}.1.")
    assert steps["right"]["output"] == {"sha256": LARGE_SHA256, "stored": "apart"}
    assert steps["left"]["output"] == {"sha256": sha256(b'{"n":1}').hexdigest(), "stored": "row"}
    assert [one["outcome"] for one in steps["left"]["attempts"]] == ["retrying", "succeeded"]
    assert [one["call"] for one in steps["left"]["model_calls"]] == [1, 2]
    assert [one["purpose"] for one in found["other_model_calls"]] == ["plan"]
    assert (found["cost"]["calls"], found["cost"]["cost_usd"], found["cost"]["unpriced_calls"]) == (3, "0.2", 1)
    assert (found["result"]["state"], found["result"]["mode"]) == ("succeeded", "deterministic")
    assert found["events"] == len((await get(api, f"/v1/tasks/{task}/events"))["items"])


async def test_costs_are_added_up_exactly(api, orchestrator, pool):
    first, second = await finished(orchestrator, pool), await failed(orchestrator)
    await model_call(pool, first, cost_usd="0.1")
    await model_call(pool, first, step="plan", arm="planner", cost_usd="0.2", model="m-2")
    await model_call(pool, second, cost_usd="0.0000000001", answered_at="2026-02-01T00:30:00+01:00")
    await model_call(pool, second, cost_usd=None, model="m-3", answered_at="2026-02-01T00:30:00Z")
    await model_call(pool, second, tenant="other", cost_usd="1000")
    total: dict[str, Any] = {
        "calls": 4,
        "input_tokens": 40,
        "output_tokens": 20,
        "cache_read_tokens": 8,
        "cache_write_tokens": 4,
    }
    total |= {"cost_usd": "0.3000000001", "unpriced_calls": 1}

    async def by(group: str, **filters: Any) -> dict[str, Any]:
        page = await get(api, "/v1/costs", group=group, **filters)
        assert page["group"] == group
        return {item["key"]: item["cost_usd"] for item in page["items"]}

    assert (await get(api, "/v1/costs"))["total"] == total
    assert await by("day") == {"2026-02-01": None, "2026-01-31": "0.3000000001"}
    assert await by("task") == {second: "0.0000000001", first: "0.3"}
    assert await by("model") == {"m-3": None, "m-2": "0.2", "m-1": "0.1000000001"}
    assert await by("arm") == {"planner": "0.2", "noop": "0.1000000001"}
    assert await by("task", task=first) == {first: "0.3"}
    assert await by("day", since="2026-02-01T00:00:00Z") == {"2026-02-01": None}
    assert [item["key"] for item in await walk(api, "/v1/costs", group="model", limit=1)] == ["m-3", "m-2", "m-1"]
    nothing = (await get(api, "/v1/costs", until="2000-01-01T00:00:00Z"))["total"]
    assert (nothing["calls"], nothing["input_tokens"], nothing["cost_usd"]) == (0, 0, None)


async def test_dead_letters_show_what_is_kept_only_one_by_one(api, orchestrator, pool):
    task = await accepted(orchestrator)
    await store_dead_letter(pool, "1-1", b'{"goal": "[email]')
    await store_dead_letter(pool, "1-2", b"\xff\x00")
    of_a_step = {"stage": "after_admission", "stream": "{l0}:arm.noop:normal", "id": f"{task}.1.left.0.1"}
    await store_dead_letter(pool, "1-3", b"{}", reason="failures_exhausted", **of_a_step)
    items = await walk(api, "/v1/dead-letters", limit=1)
    assert [item["reason"] for item in items] == ["failures_exhausted", "malformed", "malformed"]
    assert (items[0]["task"], items[1]["bytes"], "text" in items[2]) == (task, 99, False)
    assert [item["id"] for item in await walk(api, "/v1/dead-letters", task=task)] == [items[0]["id"]]
    assert len(await walk(api, "/v1/dead-letters", reason="malformed")) == 2
    one = await get(api, f"/v1/dead-letters/{items[2]['id']}")
    assert (one["text"], one["stored_bytes"], one["dead_letter"]["entry"]) == ('{"goal": "[email]', 17, "1-1")
    binary = await get(api, f"/v1/dead-letters/{items[1]['id']}")
    assert ("text" in binary, binary["stored_bytes"]) == (False, 2)
    later = (datetime.fromisoformat(items[0]["received_at"]) + timedelta(seconds=1)).isoformat()
    assert await walk(api, "/v1/dead-letters", since=later) == []


async def test_the_producers_client_reads_every_document(api, orchestrator, pool):
    task = await finished(orchestrator, pool)
    await model_call(pool, task)
    await store_dead_letter(pool, "1-1", b"x")
    async with AsyncClient(str(api.base_url)) as client:
        assert (await client.status(task)).state == "succeeded"
        assert [item.task async for item in client.tasks(state="succeeded")] == [task]
        assert [item.run async for item in client.runs(task)] == [1]
        assert [item.step async for item in client.steps(task, 1)] == ["both", "left", "right"]
        assert len([item async for item in client.attempts(task)]) == 4
        assert (await client.provenance(task)).cost.calls == 1
        assert (await client.costs("arm")).items[0].key == "noop"
        (one,) = [item async for item in client.dead_letters()]
        assert (await client.dead_letter(one.id)).text == "x"
