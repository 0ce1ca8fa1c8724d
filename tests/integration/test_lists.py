"""The commands that list and follow, against the real API and against a scripted stream of events."""

from typing import Any

import orjson
import pytest

from tests.helpers.commands import octollm
from tests.helpers.scripted_server import TASK, WAITING, Answer, frame, problem, serving, status
from tests.helpers.stored_tasks import accepted, failed, finished, model_call, store_dead_letter


async def said(*arguments: str) -> Any:
    done = await octollm(*arguments, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    return orjson.loads(done.stdout)


@pytest.fixture
def url(api, monkeypatch) -> None:
    monkeypatch.setenv("OCTOLLM_REFLEX_URL", str(api.base_url).rstrip("/"))


async def test_tasks_narrow_page_and_print(url, orchestrator, pool):
    tasks = [await accepted(orchestrator, goal="first \x1b[31mred\x1b[0m"), await failed(orchestrator)]
    tasks.append(await finished(orchestrator, pool))
    assert [item["task"] for item in (await said("tasks"))["items"]] == tasks[::-1]
    only = ("--state", "failed", "--kind", "pair", "--source", "http", "--priority", "normal", "--since", "1h")
    assert [item["task"] for item in (await said("tasks", *only))["items"]] == [tasks[1]]
    assert (await said("tasks", "--until", "1h", "--text", "x"))["items"] == []
    first = await said("tasks", "--limit", "2")
    rest = await said("tasks", "--cursor", first["next"])
    assert [item["task"] for item in first["items"] + rest["items"]] == tasks[::-1]
    shown = await octollm("tasks", "--limit", "2")
    assert ("step_failed" in shown.stdout, "--cursor" in shown.stderr) == (True, True)
    assert "\x1b" not in (await octollm("tasks", "--state", "running")).stdout
    assert "no tasks match" in (await octollm("tasks", "--state", "expired")).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks", "--state", "done"),
        ("tasks", "--priority", "urgent"),
        ("tasks", "--since", "yesterday"),
        ("tasks", "--until", "999999d"),
        ("tasks", "--limit", "0"),
        ("cost", "--by", "week"),
        ("dead", "show", "x"),
    ],
)
async def test_wrong_use(arguments):
    done = await octollm(*arguments)
    assert done.exit_code == 2
    assert arguments[-2] in done.stderr or "ID" in done.stderr


async def test_dead_letters_and_costs(url, orchestrator, pool):
    await store_dead_letter(pool, "1-1", b"kept \x1b[31m")
    (item,) = (await said("dead", "ls", "--reason", "malformed"))["items"]
    assert (await said("dead", "show", str(item["id"])))["text"] == "kept \x1b[31m"
    shown = await octollm("dead", "show", str(item["id"]))
    assert ("kept" in shown.stdout, "\x1b" in shown.stdout) == (True, False)
    assert "there is no dead letter 99" in str((await octollm("dead", "show", "99")).exception)
    assert "no calls" in (await octollm("cost")).stderr
    task = await finished(orchestrator, pool)
    await model_call(pool, task, cost_usd="0.25")
    await model_call(pool, task, cost_usd=None)
    costs = await said("cost", "--by", "arm", "--task", task)
    assert (costs["total"]["cost_usd"], costs["items"][0]["key"]) == ("0.25", "noop")
    table = (await octollm("cost", "--by", "model")).stdout
    assert ("m-1" in table, "0.25" in table, "1 calls have no known price" in table) == (True, True, True)


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1)])
async def test_watch_prints_what_happens_and_what_waits(monkeypatch, state, code):
    stream = Answer.stream(
        frame(1, "accepted"), WAITING, WAITING, frame(2, "step_sent", step="run", arm="executor", attempt=2),
        frame(3, "finished", state=state),
    )  # fmt: skip
    async with serving(status("running"), stream) as server:
        monkeypatch.setenv("OCTOLLM_REFLEX_URL", server.url)
        shown = await octollm("watch", TASK)
    assert shown.exit_code == code
    assert shown.stdout.count("no worker for 12 s") == 1
    assert "run (attempt 2)  [executor]" in shown.stdout
    async with serving(status("running"), stream) as server:
        monkeypatch.setenv("OCTOLLM_REFLEX_URL", server.url)
        lines = (await octollm("watch", TASK, "--json")).stdout.splitlines()
    assert [orjson.loads(line)["event"] for line in lines] == ["accepted", "waiting", "step_sent", "finished"]


async def test_watch_of_a_task_that_has_ended_long_ago(monkeypatch):
    async with serving(status("succeeded"), Answer(204), status("succeeded")) as server:
        monkeypatch.setenv("OCTOLLM_REFLEX_URL", server.url)
        assert (await octollm("watch", TASK, "--after", "1-9")).exit_code == 0


async def test_cancel_and_an_unknown_task(monkeypatch):
    async with serving(Answer.json({"task": TASK, "state": "running"}, 202)) as server:
        monkeypatch.setenv("OCTOLLM_REFLEX_URL", server.url)
        assert (await said("cancel", TASK, "--detail", "enough"))["state"] == "running"
    async with serving(problem(404, "not_found", "nothing")) as server:
        monkeypatch.setenv("OCTOLLM_REFLEX_URL", server.url)
        for command in ("cancel", "watch", "show"):
            done = await octollm(command, TASK)
            assert f"there is no task {TASK}" in str(done.exception)


async def test_show_says_what_a_task_waits_for(monkeypatch):
    known = {"task": TASK, "tenant": "default", "state": "running", "run": 1, "version": 3, "stored": True}
    waiting = {"step": "run", "arm": "executor", "for_s": 90}
    answer = Answer.json({**known, "created_at": "2026-01-31T12:00:00.000Z", "waiting": [waiting]})
    async with serving(answer) as server:
        monkeypatch.setenv("OCTOLLM_REFLEX_URL", server.url)
        shown = await octollm("show", TASK)
    assert "step run waits for the arm executor, which has had no worker for 90 s" in shown.stdout


async def test_show_says_where_a_large_result_is(monkeypatch):
    known = {"task": TASK, "tenant": "default", "state": "succeeded", "run": 1, "version": 3, "stored": True}
    result_at = {"api_path": f"/v1/tasks/{TASK}", "detail": "run octollm api"}
    answer = Answer.json(
        {**known, "created_at": "2026-01-31T12:00:00.000Z", "result_bytes": 98_000, "result_at": result_at}
    )
    async with serving(answer) as server:
        monkeypatch.setenv("OCTOLLM_REFLEX_URL", server.url)
        shown = await octollm("show", TASK)
    assert f"/v1/tasks/{TASK}: run octollm api" in shown.stdout
