"""A step that was given up on, from its dead letter to the next run, and garbage of no tenant."""

import json
from pathlib import Path
from typing import Any

import redis as redis_sync

from tests.helpers.programs import ask, octollm, up
from tests.helpers.waiting import until_sync

ROOT = Path(__file__).parents[2]
NOTE = {"goal": "keep it", "kind": "note", "input": {"text": "later"}}


def test_an_operator_repairs_an_arm_and_brings_its_tasks_back(tmp_path):
    text = (ROOT / "streams.yaml").read_text()
    text = text.replace("octollm.arms.judge:Judge", "repaired:Repaired")
    text = text.replace(
        "retry: {max_failures: 5, base_ms: 200, cap_ms: 30000}", "retry: {max_failures: 2, base_ms: 1, cap_ms: 1}"
    )
    (tmp_path / "streams.yaml").write_text(text)
    environment = {
        "OCTOLLM_TOPOLOGY_FILE": str(tmp_path / "streams.yaml"),
        "PYTHONPATH": str(ROOT / "tests" / "e2e" / "arms"),
        "REPAIRED": str(tmp_path / "repaired"),
    }
    with up(tmp_path, **environment) as stack:
        url = {"OCTOLLM_REFLEX_URL": stack.http}

        def dead_letters(*arguments: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(octollm("dead", "ls", "--json", *arguments, **url).stdout)["items"]
            return found

        with redis_sync.Redis.from_url(stack.addresses["redis"]) as client:
            client.xadd("{l0}:tasks:normal", {"garbage": "in"})
        task = stack.submit(NOTE).json()["task"]
        ended = stack.ended(task)
        assert (ended["state"], ended["reason"]) == ("failed", "step_dead")
        of_task = ("--task", task)
        (dead,) = until_sync(lambda: dead_letters(*of_task), "the dead letter")
        assert (dead["reason"], dead["run"], dead["type"]) == ("failures_exhausted", 1, "step.requested.v1")
        (garbage,) = until_sync(lambda: dead_letters("--reason", "misrouted"), "the garbage")
        assert garbage["tenant"] == ""
        assert octollm("dead", "redrive", str(garbage["id"]), **url).returncode == 1
        assert octollm("dead", "show", str(garbage["id"]), **url).returncode == 0
        assert octollm("dead", "drop", str(garbage["id"]), **url).returncode == 0
        until_sync(lambda: dead_letters("--reason", "misrouted") == [], "the dropped one's absence")
        (tmp_path / "repaired").touch()
        planned = json.loads(octollm("dead", "redrive", *of_task, "--dry-run", "--json", **url).stdout)
        assert [one["dead_letter"] for one in planned["items"]] == [dead["id"]]
        assert stack.status(task)["run"] == 1
        assert octollm("dead", "redrive", *of_task, "--yes", **url).returncode == 0
        until_sync(lambda: stack.status(task)["run"] == 2, "run 2")
        assert stack.ended(task)["state"] == "succeeded"
        assert dead_letters(*of_task) == []
        (done,) = dead_letters("--all", *of_task)
        assert done["redriven_at"] >= dead["received_at"]
        assert octollm("dead", "redrive", str(dead["id"]), **url).returncode == 1
        attempts = ask("GET", f"{stack.http}/v1/tasks/{task}/attempts?run=1").json()["items"]
        tried = [(one["outcome"], one.get("error_class")) for one in attempts if one["step"] == "verdict"]
        assert tried == [("retrying", "transient"), ("dead", "transient")]
