"""Tasks that think, end to end without the bus: the real orchestrator, arms, journal, SDK, sandbox; scripted answers.

That such a task succeeds shows that the pipeline is right; it says nothing about any model.
"""

import asyncio
import json
from typing import Any

import pytest
import structlog

from octollm.arms.base import Arm, ArmContext
from octollm.arms.coder import Coder
from octollm.arms.guardian import Guardian
from octollm.arms.judge import Judge
from octollm.arms.planner import Planner
from octollm.contracts import StepDone, StepError, StepFailed, StepRequested, read
from octollm.contracts.ids import new_task_id
from octollm.errors import PermanentError, SettingsError
from octollm.isolation.pool import ProcessPool
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import load_recipes
from octollm.resources import checkout, rules_path
from octollm.runtime.arm_role import arm_handler, chain_to
from octollm.runtime.model_role import WorkerModelClient
from octollm.runtime.programs import find_program
from octollm.runtime.worker import run_roles
from octollm.settings.loader import load_settings
from octollm.settings.sections import ModelsSettings
from tests.helpers.consumers import KEYS, consuming, fields, step, topology
from tests.helpers.mock_models import MockModels, Refuse, Say
from tests.helpers.orchestrators import done, message_builder, rows, sends, submitted
from tests.helpers.waiting import until

KEY = "sk-test-" + "q" * 24
SETTINGS = ModelsSettings(provider="auto", model="", timeout_s=30, max_output_tokens=512)
TESTS = "from solution import double\nassert double(4) == 8, double(4)\nprint('all good')\n"
WRONG, RIGHT = "def double(n):\n    return n\n", "def double(n):\n    return 2 * n\n"
PATCH = "--- a/solution.py\n+++ b/solution.py\n@@ -1,2 +1,2 @@\n def double(n):\n-    return n\n+    return 2 * n\n"


@pytest.fixture
def orchestrator(pool):
    root = checkout()
    assert root is not None
    return Orchestrator(pool, load_recipes(root / "recipes", frozenset(topology().arms)), message_builder(), 3600)


@pytest.fixture
async def models(monkeypatch):
    async with MockModels() as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        yield server


class TaskPool:
    """Works on every step that the orchestrator sends, until none is left."""

    def __init__(self, pool, orchestrator) -> None:
        async def get_pool():
            return pool

        self._model = WorkerModelClient(SETTINGS, get_pool)
        self._orchestrator = orchestrator
        self._arms: dict[str, Arm] = {"coder": Coder(), "guardian": Guardian(), "judge": Judge(), "planner": Planner()}

    async def finish(self, task: str, **submission: Any) -> None:
        todo = sends(*await self._orchestrator.handle([submitted(task, **submission)]))
        while todo:
            one = todo.pop()
            todo += sends(*await self._orchestrator.handle([await self._work(one)]))
        await self._model.close()

    async def _work(self, one: StepRequested):
        context = ArmContext(structlog.get_logger(), "w", rules_path(), model=self._model)
        try:
            if one.arm == "executor":
                return done(one, await self._run(one.input))
            return done(one, await self._arms[one.arm].handle(one, context))
        except PermanentError as error:
            reported = StepError(code=error.code, message=error.message)
            return done(one, model=StepFailed, outcome="failed", error=reported)

    async def _run(self, value: dict[str, Any]) -> dict[str, Any]:
        program = await asyncio.create_subprocess_exec(
            find_program("octollm-executor"), "run", "-", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await program.communicate(json.dumps(value).encode())
        assert program.returncode == 0
        return json.loads(out)


async def outcome(pool, task: str) -> tuple[str, str | None, dict[str, Any]]:
    (row,) = await rows(pool, f"SELECT state, reason, result FROM tasks WHERE id = '{task}'")
    return row["state"], row["reason"], row["result"]["answer"]


async def test_a_patch_is_applied_looked_through_run_and_judged_without_a_model(pool, orchestrator, monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    task = new_task_id("l0")
    value = {"files": {"solution.py": WRONG}, "patch": PATCH, "tests": TESTS}
    await TaskPool(pool, orchestrator).finish(task, kind="patch", input=value)
    state, reason, answer = await outcome(pool, task)
    assert (state, answer["verdict"], answer["exit_code"]) == ("succeeded", "pass", 0), reason
    assert (answer["files"], answer["changed"]) == ({"solution.py": RIGHT}, ["solution.py"])
    assert answer["stdout"] == "all good\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tests": "import solution\nassert solution.double(4) == 9\n"}, "judged"),
        ({"patch": PATCH.replace("2 * n", "two * n")}, "judged"),
        ({"files": {"solution.py": RIGHT}}, "step_failed"),
    ],
    ids=["tests fail", "undefined name", "does not fit"],
)
async def test_a_patch_that_is_no_good_fails_with_its_reason(pool, orchestrator, monkeypatch, change, reason):
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    task = new_task_id("l0")
    value = {"files": {"solution.py": WRONG}, "patch": PATCH, "tests": TESTS, **change}
    await TaskPool(pool, orchestrator).finish(task, kind="patch", input=value)
    (row,) = await rows(pool, "SELECT state, reason, detail FROM tasks")
    assert (row["state"], row["reason"]) == ("failed", reason)


def code(text: str) -> Say:
    return Say(json.dumps({"files": [{"name": "solution.py", "text": text}], "explanation": "It doubles."}))


async def test_code_is_written_again_with_what_its_tests_said_until_they_pass(pool, orchestrator, models):
    models.script(code(WRONG), code(RIGHT))
    task = new_task_id("l0")
    await TaskPool(pool, orchestrator).finish(task, kind="write", goal="Double a number.", input={"tests": TESTS})
    state, reason, answer = await outcome(pool, task)
    assert (state, answer["verdict"], answer["rounds"]) == ("succeeded", "pass", 1), reason
    assert answer["files"] == {"solution.py": RIGHT}
    first, second = (asked.body["messages"][0]["content"] for asked in models.requests)
    assert 'name="feedback"' not in first
    assert 'name="previous"' not in first
    assert "AssertionError: 4" in second
    assert "return n" in second
    calls = await rows(pool, "SELECT round, purpose, cost_usd FROM model_calls ORDER BY round")
    assert [(row["round"], row["purpose"]) for row in calls] == [(0, "code"), (1, "code")]


async def test_code_whose_tests_never_pass_is_given_up_on_at_the_cap(pool, orchestrator, models):
    models.script(*(code(f"{WRONG}# {number}\n") for number in range(3)))
    task = new_task_id("l0")
    await TaskPool(pool, orchestrator).finish(task, kind="write", goal="Double a number.", input={"tests": TESTS})
    assert (await outcome(pool, task))[:2] == ("failed", "judged")


PLAN = {
    "steps": {"redact": {"arm": "guardian", "input": {"mode": "redact", "value": {"$": "task.input"}}}},
    "answer": {"$": "steps.redact.output.value"},
}


async def test_a_planner_worker_plans_through_the_streams_and_a_redelivery_pays_nothing(
    redis_server, client, pool, models
):
    """The role as `octollm worker planner` wires it: stream, arm, model, journal, SDK."""
    models.script(Refuse(429, "rate_limit_error", headers={"retry-after": "1800"}), Say(json.dumps(PLAN)))
    await rows(pool, _TASK.format(task=step().task))
    topic = topology().topics["arm.planner"]

    async def get_pool():
        return pool

    model = WorkerModelClient(SETTINGS, get_pool)
    processes = ProcessPool()
    handler = arm_handler(topic, "l0", "w", get_pool, lambda: model, None, processes, chain_to(topology(), "l0"))
    value = {"goal": "Redact it", "input": {"note": "x"}, "arms": sorted(topology().arms), "kinds": []}
    asked = step(step="plan", arm="planner", input=value, timeout_s=60)
    ended = []
    for attempt in (1, 2, 3):
        message = fields(asked.model_copy(update={"attempt": attempt}))
        await client.xadd(KEYS.stream(topic), message)

        async def reported(count: int = attempt) -> bool:
            return await client.xlen(KEYS.done) == count

        async with consuming(redis_server.url, client, topic, None, handler=handler):
            await until(reported)
        ((_, entry),) = (await client.xrange(KEYS.done))[-1:]
        ended.append(read(StepDone, entry[b"body"]).root)
    await model.close()
    await processes.close()
    first, second, third = ended
    assert (first.outcome, first.error.code) == ("retrying", "model_rate_limited")
    assert first.delay_ms >= 1_800_000
    # Attempt 2 paid; attempt 3 is what a crash after the answer looks like.
    assert second.output.value["plan"] == third.output.value["plan"] == PLAN
    assert len(models.requests) == 2
    (row,) = await rows(pool, "SELECT attempt, delivery, arm, tenant FROM model_calls")
    assert dict(row) == {"attempt": 2, "delivery": 1, "arm": "planner", "tenant": "default"}


_TASK = """
INSERT INTO tasks (id, tenant, state, source, priority, idempotency_key, fingerprint, submission, redactions,
    traceparent, run, round, version, seq, received_at, updated_at)
VALUES ('{task}', 'default', 'running', 'http', 'normal', 'k', 'f', '{{}}', '{{}}', '', 1, 0, 1, 1, now(), now())
"""


async def test_a_model_that_is_wanted_and_not_there_is_said_before_anything_is_connected_to(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OCTOLLM_MODELS_PROVIDER", "openai")
    monkeypatch.setenv("OCTOLLM_REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        async with asyncio.timeout(60):
            await run_roles(["coder"], load_settings(), topology(), concurrency=None, stop=asyncio.Event())


async def test_a_worker_that_asks_no_model_does_not_care_which_is_configured(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OCTOLLM_MODELS_PROVIDER", "openai")
    monkeypatch.setenv("OCTOLLM_REDIS_URL", "redis://127.0.0.1:1/0")
    stop = asyncio.Event()
    stop.set()
    # It gets as far as waiting for Redis, and is asked to stop there.
    await run_roles(["judge"], load_settings(), topology(), concurrency=None, stop=stop)
