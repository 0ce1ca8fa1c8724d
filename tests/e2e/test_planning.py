"""A task that is nothing but a goal: planned by a model where there is one, and refused where there is none.

The model is a script on a real socket, asked by the provider's real SDK. That the task succeeds shows that the pipeline
is right; it says nothing about any model.
"""

import asyncio
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tests.helpers.mock_models import MockModels, Say
from tests.helpers.programs import octollm, up
from tests.helpers.waiting import until_sync

KEY = "sk-ant-api03-" + "q" * 24
NO_KEYS = {"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": "", "OCTOLLM_MODELS_PROVIDER": "auto", "OCTOLLM_MODELS_MODEL": ""}
GOAL = "How many words has this sentence?"
PLAN: dict[str, Any] = {
    "steps": {
        "redact": {"arm": "guardian", "input": {"mode": "redact", "value": {"$": "task.goal"}}},
        "count": {
            "arm": "executor",
            "needs": ["redact"],
            "input": {
                "language": "python",
                "code": "import json, sys\nprint(json.dumps({'words': len(sys.stdin.read().split())}))\n",
                "stdin": {"$": "steps.redact.output.value"},
                "parse": "json",
            },
        },
        "verdict": {
            "arm": "judge",
            "needs": ["count"],
            "input": {
                "checks": [
                    {"check": "outcome", "of": {"$": "steps.count.output"}},
                    {"check": "numeric", "value": {"$": "steps.count.output.result.words"}, "min": 1},
                ]
            },
        },
    },
    "answer": {"words": {"$": "steps.count.output.result.words"}},
}


async def calls(dsn: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        columns = "task, step, arm, purpose, provider, input_tokens, output_tokens, surplus_calls"
        return [dict(row) for row in await connection.fetch(f"SELECT {columns} FROM model_calls")]
    finally:
        await connection.close()


def logs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*.log") if path.is_file()}


def submitted(url: str) -> tuple[int, dict[str, Any]]:
    """Exit code and status of a goal that is waited for."""
    done = octollm("submit", "--goal", GOAL, "--wait", "--json", OCTOLLM_REFLEX_URL=url)
    return done.returncode, json.loads(done.stdout)


def planned(folder: Path, models: str) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """Submits the goal and checks its result; gives the task, the journal, and what `octollm cost` says."""
    environment = {**NO_KEYS, "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": models, "OCTOLLM_LOG_LEVEL": "debug"}
    with up(folder, "--data", str(folder / "data"), **environment) as running:
        code, status = submitted(running.http)
        assert (code, status["state"]) == (0, "succeeded"), status
        result = status["result"]
        assert (result["mode"], result["answer"]) == ("model", {"words": 6})
        steps = {step["step"]: (step["arm"], step["state"]) for step in result["steps"]}
        arms = {"plan": "planner", **{name: step["arm"] for name, step in PLAN["steps"].items()}}
        assert steps == {name: (arm, "succeeded") for name, arm in arms.items()}
        journal = asyncio.run(calls(running.addresses["postgres"]))
        cost = octollm("cost", "--task", status["task"], "--json", OCTOLLM_REFLEX_URL=running.http)
        assert cost.returncode == 0, cost.stderr
        return status["task"], journal, json.loads(cost.stdout)["total"]


async def test_a_goal_is_planned_by_the_model_and_paid_for_once(tmp_path: Path):
    async with MockModels() as models:
        models.script(Say(json.dumps(PLAN), input=1300, output=240))
        task, journal, cost = await asyncio.to_thread(planned, tmp_path, models.url)
    (asked,) = models.requests
    assert KEY in asked.headers["authorization"]
    assert GOAL in asked.body["messages"][0]["content"]
    call = {"task": task, "step": "plan", "arm": "planner", "purpose": "plan", "provider": "anthropic"}
    assert journal == [{**call, "input_tokens": 1300, "output_tokens": 240, "surplus_calls": 0}]
    assert (cost["calls"], cost["input_tokens"], cost["output_tokens"]) == (1, 1300, 240)
    assert float(cost["cost_usd"]) > 0
    reported = logs(tmp_path)
    assert {"up.log", "octollm-reflex.log", "octollm-executor.log"} <= set(reported)
    assert "made a plan" in reported["up.log"]
    assert [name for name, text in reported.items() if KEY in text] == []


def test_a_goal_without_a_model_is_refused_and_never_made_up(tmp_path: Path):
    with up(tmp_path, **NO_KEYS) as running:

        def refused() -> httpx.Response | None:
            answer = running.submit({"goal": GOAL})
            return answer if answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY else None

        # The first ones may come before the reflex knows which kinds there are; these are rejected afterwards.
        problem = until_sync(refused, "the reflex to know the kinds").json()
        assert problem["type"] == "urn:octollm:problem:needs_model"
        done = octollm("submit", "--goal", GOAL, "--wait", OCTOLLM_REFLEX_URL=running.http)
        assert (done.returncode, done.stdout) == (1, "")
        assert "kind is missing" in done.stderr
