"""One more run of a task, the end of a dead letter, and a task that is put off, as a producer sees them over HTTP."""

import json
from datetime import UTC, datetime, timedelta

import redis as redis_sync

from tests.helpers.programs import Up, ask, octollm
from tests.helpers.waiting import until_sync

SLOW = {
    "goal": "wait",
    "kind": "code",
    "input": {"code": "x = 1", "tests": "import time; time.sleep(20)"},
    "deadline_s": 1,
}
NOTE = {"goal": "keep it", "kind": "note", "input": {"text": "later"}}


def test_an_expired_task_runs_again_and_its_view_goes_on_into_the_next_run(stack: Up):
    task = stack.submit(SLOW).json()["task"]
    assert stack.ended(task)["state"] == "expired"
    url = f"{stack.http}/v1/tasks/{task}"
    asked = ask("POST", f"{url}/runs", json={"run": 1})
    assert (asked.status_code, asked.json()["accepted"], asked.json()["run"]) == (202, True, 1)
    until_sync(lambda: stack.status(task)["run"] == 2, "run 2")
    again = ask("POST", f"{url}/runs", json={"run": 1})
    assert (again.status_code, again.json()["accepted"], again.json()["run"]) == (200, False, 2)
    events = ask("GET", f"{url}/events").text
    ids = [line.removeprefix("id: ").removeprefix("id:") for line in events.splitlines() if line.startswith("id:")]
    places = [tuple(int(part) for part in one.split("-")) for one in ids]
    assert places == sorted(set(places))
    assert {run for run, _ in places} == {1, 2}
    assert stack.ended(task)["run"] == 2
    runs = ask("GET", f"{url}/runs").json()["items"]
    assert [(run["run"], run["state"]) for run in runs] == [(1, "expired"), (2, "expired")]


def test_what_needs_no_other_run_says_so(stack: Up):
    task = stack.submit(NOTE).json()["task"]
    stack.ended(task)
    left = ask("POST", f"{stack.http}/v1/tasks/{task}/runs")
    assert (left.status_code, left.json()["accepted"], left.json()["detail"]) == (200, False, "run 1 has succeeded")
    for body, status in (({"run": 2}, 422), ({"run": 0}, 422), ({"x": 1}, 422)):
        answer = ask("POST", f"{stack.http}/v1/tasks/{task}/runs", json=body)
        assert answer.status_code == status, answer.text
    unknown = ask("POST", f"{stack.http}/v1/tasks/l0-01jd0000000000000000000000/runs")
    assert unknown.status_code == 404


def test_an_unreadable_entry_cannot_run_again_and_is_dropped(stack: Up):
    url = {"OCTOLLM_REFLEX_URL": stack.http}

    def dead_letters(*arguments: str) -> list[dict[str, object]]:
        """Those of this test: the stack is shared."""
        found = json.loads(octollm("dead", "ls", "--json", *arguments, **url).stdout)["items"]
        return [dead_letter for dead_letter in found if dead_letter["id"] not in known]

    known: set[object] = set()
    known = {dead_letter["id"] for dead_letter in dead_letters("--all")}
    with redis_sync.Redis.from_url(stack.addresses["redis"]) as client:
        client.xadd("ingest:default", {"body": "{nothing"})
    (one,) = until_sync(dead_letters, "the dead letter")
    no_task = octollm("dead", "redrive", str(one["id"]), **url)
    assert (no_task.returncode, "belongs to no task" in no_task.stdout) == (1, True)
    assert octollm("dead", "drop", str(one["id"]), **url).returncode == 0
    until_sync(lambda: dead_letters() == [], "the dropped one's absence")
    assert [dead_letter["id"] for dead_letter in dead_letters("--all")] == [one["id"]]
    assert ask("DELETE", f"{stack.http}/v1/dead-letters/999999").status_code == 404


def test_a_task_that_is_put_off_begins_at_its_moment(stack: Up):
    moment = datetime.now(UTC) + timedelta(seconds=6)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    task = stack.submit({**NOTE, "not_before": text}).json()["task"]
    until_sync(lambda: stack.status(task)["stored"], "its row")
    state = stack.status(task)["state"]
    assert state == "accepted" or datetime.now(UTC) >= moment
    ended = stack.ended(task)
    assert ended["state"] == "succeeded"
    assert datetime.fromisoformat(ended["result"]["finished_at"]) >= moment
    for wrong in ("2026-02-31T00:00:00.000Z", "9999-01-01T00:00:00.000Z", "tomorrow"):
        refused = stack.submit({**NOTE, "not_before": wrong})
        assert (refused.status_code, refused.json()["field"]) == (422, "not_before"), refused.text


def test_it_is_cancelled_while_it_waits(stack: Up):
    url = {"OCTOLLM_REFLEX_URL": stack.http}
    sent = octollm("submit", "-", "--json", stdin=json.dumps(NOTE), **url)
    assert sent.returncode == 0
    options = ("--goal", "g", "--kind", "note", "--input", '{"text": "x"}')
    task = json.loads(octollm("submit", *options, "--not-before", "+10m", "--json", **url).stdout)["task"]
    until_sync(lambda: stack.status(task)["stored"], "its row")
    assert ask("DELETE", f"{stack.http}/v1/tasks/{task}").status_code == 202
    assert stack.ended(task)["state"] == "cancelled"
    assert octollm("submit", *options, "--not-before", "soon", **url).returncode == 2
