"""A 202 in mode `stored`: Postgres has the task by then, so that Redis may lose everything."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
import redis as redis_sync

from tests.helpers.programs import Up, ask, octollm, up
from tests.helpers.waiting import until_sync

ROOT = Path(__file__).resolve().parents[2]
# Its step still runs when Redis is made to lose it, also where everything takes its time.
LONG = {"goal": "wait", "kind": "code", "input": {"code": "x = 1", "tests": "import time; time.sleep(10)"}}
NOTE = {"goal": "keep it", "kind": "note", "input": {"text": "later"}}


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack that needs `stored`, with leases short enough to wait for."""
    folder = tmp_path_factory.mktemp("stored")
    text = (ROOT / "streams.yaml").read_text()
    for long in ("lease_s: 30", "lease_s: 60"):
        assert long in text
        text = text.replace(long, "lease_s: 3")
    (folder / "streams.yaml").write_text(text.replace("heartbeat_s: 5", "heartbeat_s: 1"))
    settings = {
        "OCTOLLM_TOPOLOGY_FILE": str(folder / "streams.yaml"),
        "OCTOLLM_ORCHESTRATOR_RECONCILE_INTERVAL_S": "1",
        "OCTOLLM_REFLEX_DURABILITY": "stored",
        "OCTOLLM_REFLEX_DURABILITY_WAIT_S": "1",
    }
    with up(folder, **settings) as running:
        yield running


def accepted(stack: Up, body: object, key: str) -> httpx.Response:
    """The 202. Its time limit is short here, and a repeat is what a producer would send."""

    def answer() -> httpx.Response | None:
        found = stack.submit(body, **{"Idempotency-Key": key})
        assert found.status_code in {202, 503}, found.text
        return found if found.status_code == 202 else None

    return until_sync(answer, "a 202")


def postgres(stack: Up) -> list[psutil.Process]:
    family = psutil.Process(stack.process.pid).children(recursive=True)
    return [one for one in family if one.name() == "postgres"]


async def test_what_was_answered_is_in_postgres_and_outlasts_all_that_redis_loses(safe: Up):
    answer = accepted(safe, LONG, str(uuid.uuid4())).json()
    connection = await asyncpg.connect(safe.addresses["postgres"])
    try:
        assert await connection.fetchval("SELECT count(*) FROM tasks WHERE id = $1", answer["task"]) == 1
    finally:
        await connection.close()
    assert answer["durability"] == "stored"
    until_sync(lambda: safe.status(answer["task"])["state"] == "running", "its begin")
    with redis_sync.Redis.from_url(safe.addresses["redis"]) as client:
        assert safe.status(answer["task"])["state"] == "running"
        client.flushall()

    def ended() -> object:
        found = ask("GET", f"{safe.http}/v1/tasks/{answer['task']}")
        return found.status_code == 200 and found.json()["state"] == "succeeded"

    until_sync(ended, "the end of a task that Redis had lost")


def test_without_postgres_a_task_is_taken_and_not_confirmed(safe: Up):
    key = str(uuid.uuid4())
    stopped = postgres(safe)
    assert stopped
    for one in stopped:
        one.send_signal(signal.SIGSTOP)
    try:
        late = safe.submit(NOTE, **{"Idempotency-Key": key})
        assert (late.status_code, late.headers["Retry-After"]) == (503, "1"), late.text
        problem = late.json()
        assert problem["type"] == "urn:octollm:problem:unconfirmed"
        assert problem["task"] in problem["detail"]
    finally:
        for one in stopped:
            one.send_signal(signal.SIGCONT)
    again = accepted(safe, NOTE, key).json()
    assert (again["task"], again["duplicate"], again["durability"]) == (problem["task"], True, "stored")
    assert safe.ended(problem["task"])["state"] == "succeeded"


def test_the_command_line_asks_for_more_and_shows_what_it_got(stack: Up):
    url = {"OCTOLLM_REFLEX_URL": stack.http}
    task = ("submit", "--goal", "keep it", "--kind", "note", "--input", '{"text": "later"}')
    reported = octollm(*task, "--durability", "stored", **url)
    assert reported.returncode == 0, reported.stderr
    assert "stored" in reported.stdout
    for wrong, says in (("safe", "replicated(n)"), ("no\nmode", "durability")):
        refused = octollm(*task, "--durability", wrong, **url)
        assert refused.returncode != 0
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr
