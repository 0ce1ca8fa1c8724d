"""Workers that are killed, stopped or started without their servers: the task still finishes, once."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
import redis as redis_sync

from octollm.contracts import StepDone, StepRequested, read, write
from octollm.contracts.ids import new_task_id
from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.redis import find_server
from octollm.runtime.programs import EXECUTOR, find_program
from octollm.settings.loader import load_settings
from tests.helpers.messages import Fields, submitted_entry
from tests.helpers.programs import OCTOLLM
from tests.helpers.waiting import until_sync

ROOT = Path(__file__).parents[2]
SLOW = """
  arm.slow:
    description: waits until it is asked to go on
    accepts: [step.requested.v1]
    group: slow
    handler: slow:Slow
    priorities: true
    concurrency: 4
    lease_s: 10
    heartbeat_s: 1
    max_deliveries: 5
    timeout_s: 60
    retry: {max_failures: 5, base_ms: 200, cap_ms: 30000}

  dead:
"""
RECIPES = {
    "slow": """
recipe: slow
version: 1
description: one step that waits
deadline_s: 300
input: {type: object, properties: {folder: {type: string}}}
steps: {wait: {arm: slow, input: {folder: {$: task.input.folder}}}}
answer: {$: steps.wait.output.pid}
""",
    "relay": """
recipe: relay
version: 1
description: five steps that wait, one after the other
deadline_s: 300
input: {type: object, properties: {folder: {type: string}}}
steps:
  a: {arm: slow, input: {folder: {$: "join('/', [task.input.folder, 'a'])"}}}
  b: {arm: slow, needs: [a], input: {folder: {$: "join('/', [task.input.folder, 'b'])"}}}
  c: {arm: slow, needs: [b], input: {folder: {$: "join('/', [task.input.folder, 'c'])"}}}
  d: {arm: slow, needs: [c], input: {folder: {$: "join('/', [task.input.folder, 'd'])"}}}
  e: {arm: slow, needs: [d], input: {folder: {$: "join('/', [task.input.folder, 'e'])"}}}
answer: {$: "[steps.a.output.pid, steps.e.output.pid]"}
""",
    "sleep": """
recipe: sleep
version: 1
description: one step in the sandbox that takes as long as it may
deadline_s: 300
input: {type: object}
steps:
  sleep:
    arm: executor
    timeout_s: 200
    input: {language: shell, code: "sleep 100; echo awake", limits: {wall_s: 120}}
answer: {$: steps.sleep.output.stdout}
""",
}
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    """The pipeline's own with short leases and one more arm: one file and one entry, as the README promises."""
    text = (
        (ROOT / "streams.yaml")
        .read_text()
        .replace("lease_s: 30", "lease_s: 10")
        .replace("lease_s: 60", "lease_s: 10")
        .replace("heartbeat_s: 5", "heartbeat_s: 1")
    )
    assert text.count("\n  dead:\n") == 1
    file = tmp_path / "streams.yaml"
    file.write_text(text.replace("\n  dead:\n", SLOW))
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for name, recipe in RECIPES.items():
        (recipes / f"{name}.yaml").write_text(recipe)
    (recipes / "note.yaml").write_text((ROOT / "recipes" / "note.yaml").read_text())
    return file


@pytest.fixture
def start(redis_server, dsn, topology, tmp_path: Path) -> Iterator[Start]:
    """Starts a program against the test's own servers; what still runs at the end is killed."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*command: str | Path, **settings: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "OCTOLLM_REDIS_URL": redis_server.url,
            "OCTOLLM_POSTGRES_DSN": dsn,
            "OCTOLLM_TOPOLOGY_FILE": str(topology),
            "OCTOLLM_ORCHESTRATOR_RECIPES_DIR": str(topology.parent / "recipes"),
            "OCTOLLM_EXECUTOR_WORKSPACE_DIR": str(tmp_path),  # a killed executor cannot tidy up
            "PYTHONPATH": str(Path(__file__).parent / "arms"),
            **settings,
        }
        log = (tmp_path / f"log-{len(running)}").open("wb")
        process = subprocess.Popen([str(part) for part in command], env=environment, stdout=log, stderr=log)
        log.close()
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()


def log_of(tmp_path: Path, number: int) -> str:
    return (tmp_path / f"log-{number}").read_text()


def put(server: redis_sync.Redis, kind: str, given: dict[str, Any]) -> str:
    task, stream, fields = submitted_entry(kind=kind, input=given)
    server.xadd(stream, fields)
    return task


def query(dsn: str, sql: str, *values: object) -> list[asyncpg.Record]:
    async def ask() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        try:
            return list(await connection.fetch(sql, *values))
        finally:
            await connection.close()

    return asyncio.run(ask())


@pytest.fixture
def server(redis_server) -> Iterator[redis_sync.Redis]:
    with redis_sync.Redis.from_url(redis_server.url) as client:
        yield client


def state(dsn: str, task: str) -> str | None:
    found = query(dsn, "SELECT state FROM tasks WHERE id = $1", task) if tables_are_there(dsn) else []
    return found[0]["state"] if found else None


def tables_are_there(dsn: str) -> bool:
    return bool(query(dsn, "SELECT to_regclass('tasks') IS NOT NULL AS there")[0]["there"])


def finishes(dsn: str, task: str) -> int:
    return len(query(dsn, "SELECT 1 FROM events WHERE task = $1 AND body->>'event' = 'finished'", task))


def begun(folder: Path) -> list[int]:
    file = folder / "begun"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def names_below(pid: int) -> set[str]:
    """Names of all processes that a process has started."""
    found = set()
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end while we look
            found.add(child.name())
    return found


def wake(pid: int) -> None:
    """Ends the sandboxed `sleep` below a process; the step's shell goes on behind it."""
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end while we look
            if child.name() == "sleep":
                child.terminate()


def gone(process: psutil.Process) -> bool:
    """Ended; whether its new parent has read its exit code yet is not ours."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_an_arm_killed_in_the_middle_of_a_step(start, server, dsn, tmp_path):
    start(*OCTOLLM, "worker", "orchestrator")
    start(*OCTOLLM, "worker", "slow")
    start(*OCTOLLM, "worker", "slow")
    task = put(server, "slow", {"folder": str(tmp_path)})
    (first,) = until_sync(lambda: begun(tmp_path), "the step's begin")
    os.kill(first, signal.SIGKILL)
    until_sync(lambda: len(begun(tmp_path)) == 2, "the reclaim")
    (tmp_path / "go").touch()
    until_sync(lambda: state(dsn, task) == "succeeded", "the end")
    (attempt,) = query(dsn, "SELECT outcome, attempt, delivery FROM attempts WHERE task = $1", task)
    assert tuple(attempt) == ("succeeded", 1, 2)
    assert finishes(dsn, task) == 1
    (row,) = query(dsn, "SELECT result->>'answer' AS pid FROM tasks WHERE id = $1", task)
    assert int(row["pid"]) == begun(tmp_path)[1] != first


def test_arms_chain_without_an_orchestrator_also_when_one_is_killed_in_the_middle(start, server, dsn, tmp_path):
    for name in "abcde":
        (tmp_path / name).mkdir()
    first = start(*OCTOLLM, "worker", "orchestrator", OCTOLLM_HANDOFF_DIRECT="true")
    start(*OCTOLLM, "worker", "slow")
    start(*OCTOLLM, "worker", "slow")
    task = put(server, "relay", {"folder": str(tmp_path)})
    until_sync(lambda: begun(tmp_path / "a"), "the first step's begin")
    first.kill()
    first.wait()
    (tmp_path / "a" / "go").touch()
    (killed,) = until_sync(lambda: begun(tmp_path / "b"), "the second step's begin")
    os.kill(killed, signal.SIGKILL)
    until_sync(lambda: len(begun(tmp_path / "b")) == 2, "the reclaim")
    for name in "bcde":
        (tmp_path / name / "go").touch()
    until_sync(lambda: server.xlen("{l0}:steps.done") == 5, "the ends of all steps")
    assert state(dsn, task) == "running"
    start(*OCTOLLM, "worker", "orchestrator", OCTOLLM_HANDOFF_DIRECT="true")
    until_sync(lambda: state(dsn, task) == "succeeded", "the end")
    ran = "SELECT step, outcome, attempt, delivery FROM attempts WHERE task = $1 ORDER BY step"
    wanted = [(name, "succeeded", 1, 2 if name == "b" else 1) for name in "abcde"]
    assert [tuple(row) for row in query(dsn, ran, task)] == wanted
    assert finishes(dsn, task) == 1
    assert [len(begun(tmp_path / name)) for name in "abcde"] == [1, 2, 1, 1, 1]
    until_sync(lambda: server.hlen("{l0}:in-flight") == 0, "an empty in-flight index")


def test_the_executor_takes_a_step_with_a_rest_and_leaves_that_to_the_orchestrator(start, server):
    start(find_program(EXECUTOR))
    task = new_task_id("l0")
    rest: Any = {
        "attempt": 1,
        "steps": [{"step": "then", "arm": "slow", "timeout_s": 5, "input": {}}],
        "seen": {"task": {}, "steps": {}, "round": 0},
        "digests": {},
    }
    for number, given in enumerate(({"language": "shell", "code": "echo x"}, {"language": "none"})):
        step = StepRequested(
            task=task, run=1, step=f"s{number}", round=0, attempt=1, tenant="default", arm="executor",
            priority="normal", failures=0, input=given, timeout_s=20, builds_on={"before": "0" * 64}, continuation=rest,
        )  # fmt: skip
        fields: Fields = {
            "type": "step.requested.v1", "id": f"{task}.1.s{number}.0.1", "tenant": "default", "traceparent": "",
            "body": write(step),
        }  # fmt: skip
        server.xadd("{l0}:arm.executor:normal", fields)
    until_sync(lambda: server.xlen("{l0}:steps.done") == 2, "both ends")
    reported = [read(StepDone, entry[b"body"]).root for _, entry in server.xrange("{l0}:steps.done")]
    assert sorted(one.outcome for one in reported) == ["failed", "succeeded"]
    assert all(one.builds_on == {"before": "0" * 64} for one in reported)
    assert server.exists("{l0}:arm.slow:normal") == 0


def test_an_arm_that_is_asked_to_stop_ends_its_step_first(start, server, dsn, tmp_path):
    start(*OCTOLLM, "worker", "orchestrator")
    worker = start(*OCTOLLM, "worker", "slow")
    task = put(server, "slow", {"folder": str(tmp_path)})
    until_sync(lambda: begun(tmp_path), "the step's begin")
    worker.send_signal(signal.SIGTERM)
    until_sync(lambda: "stopping" in log_of(tmp_path, 1), "the word that it stops")
    (tmp_path / "go").touch()
    assert worker.wait(60) == 0
    until_sync(lambda: state(dsn, task) == "succeeded", "the end")
    (attempt,) = query(dsn, "SELECT delivery FROM attempts WHERE task = $1", task)
    assert attempt["delivery"] == 1
    assert server.xinfo_consumers("{l0}:arm.slow:normal", "slow") == []


def test_an_executor_killed_in_the_middle_of_a_step(start, server, dsn):
    start(*OCTOLLM, "worker", "orchestrator")
    program = find_program(EXECUTOR)
    executors = {name: start(program, OCTOLLM_EXECUTOR_CONSUMER=name) for name in ("one", "two")}
    task = put(server, "sleep", {})

    def runs() -> str:
        return next((name for name, process in executors.items() if "sleep" in names_below(process.pid)), "")

    first = until_sync(runs, "the sandboxed process")
    children = psutil.Process(executors[first].pid).children(recursive=True)
    executors.pop(first).kill()
    until_sync(lambda: all(gone(child) for child in children), "the end of the sandboxed processes")
    second = until_sync(runs, "the reclaim")
    wake(executors[second].pid)
    until_sync(lambda: state(dsn, task) == "succeeded", "the end")
    (attempt,) = query(dsn, "SELECT outcome, delivery, worker FROM attempts WHERE task = $1", task)
    assert tuple(attempt) == ("succeeded", 2, second)
    assert finishes(dsn, task) == 1


def test_orchestrators_killed_in_the_middle_of_many_tasks(start, server, dsn, tmp_path):
    for role in ("guardian", "judge"):
        start(*OCTOLLM, "worker", role)
    first = start(*OCTOLLM, "worker", "orchestrator")
    until_sync(lambda: '"ready"' in log_of(tmp_path, 2), "readiness")
    tasks = [put(server, "note", {"text": f"number {number}"}) for number in range(300)]
    ended = "SELECT count(*) AS ended FROM tasks WHERE result IS NOT NULL"

    def some() -> int:
        """How many have ended, once there are enough; it is stopped while we look, and stays so then."""
        first.send_signal(signal.SIGSTOP)
        found = int(query(dsn, ended)[0]["ended"])
        if found <= 10:
            first.send_signal(signal.SIGCONT)
            return 0
        return found

    assert until_sync(some, "the first tasks' ends") < 300
    first.kill()
    first.wait()
    start(*OCTOLLM, "worker", "orchestrator")
    until_sync(lambda: query(dsn, ended)[0]["ended"] == 300, "all tasks' ends")
    rows = query(dsn, "SELECT id, state FROM tasks")
    assert {row["id"] for row in rows} == set(tasks)
    assert {row["state"] for row in rows} == {"succeeded"}
    twice = "SELECT task FROM events WHERE body->>'event' = 'finished' GROUP BY task HAVING count(*) > 1"
    assert query(dsn, twice) == []
    again = "SELECT task FROM attempts WHERE outcome = 'succeeded' GROUP BY task, step, round HAVING count(*) > 1"
    assert query(dsn, again) == []


def test_redis_missing_at_start_is_waited_for(start, tmp_path):
    with Ports() as ports:
        port = ports.take(0)
        url = f"redis://user:secret@127.0.0.1:{port}/0"
        worker = start(*OCTOLLM, "worker", "judge", OCTOLLM_REDIS_URL=url)
        until_sync(lambda: "cannot be used" in log_of(tmp_path, 0), "the message")
    said = log_of(tmp_path, 0)
    assert f"127.0.0.1:{port}" in said
    assert "OCTOLLM_REDIS_URL" in said
    assert "secret" not in said
    redis_server = [
        find_server(load_settings().redis.server)[0],
        "--port",
        str(port),
        "--save",
        "",
        "--dir",
        str(tmp_path),
        "--user",
        *["user", "on", ">secret", "~*", "&*", "+@all"],
    ]
    start(*redis_server)
    until_sync(lambda: '"ready"' in log_of(tmp_path, 0), "readiness")
    assert "Traceback" not in log_of(tmp_path, 0)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def test_postgres_missing_at_start_is_said_and_does_not_hold_up_a_stop(start, tmp_path):
    dsn = "postgresql://someone:secret@127.0.0.1:1/none"
    worker = start(*OCTOLLM, "worker", "orchestrator", OCTOLLM_POSTGRES_DSN=dsn)
    until_sync(lambda: "cannot be used" in log_of(tmp_path, 0), "the message")
    said = log_of(tmp_path, 0)
    assert "127.0.0.1:1" in said
    assert "OCTOLLM_POSTGRES_DSN" in said
    assert "secret" not in said
    assert "Traceback" not in said
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
