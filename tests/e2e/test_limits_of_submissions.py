"""What the reflex admits at its limits, every later stage takes; and just beyond them it refuses."""

import json
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from octollm.database.pool import open_pool
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import load_recipes
from octollm.protocol.handoff import Entry
from octollm.protocol.kinds import publish
from tests.helpers.orchestrators import message_builder, rows, sends
from tests.helpers.reflex import JSON, TASKS, reflex

RECIPE = """
recipe: anything
version: 1
description: passes its whole input on
deadline_s: 60
input: {type: object}
steps:
  first: {arm: noop, input: {task: {input: {$: task.input}, goal: {$: task.goal}, metadata: {$: task.metadata}}}}
answer: 1
"""
BODY_LIMIT = 1024 * 1024
WIDE = "\U0001f600"


def nested(levels: int) -> Any:
    """Return arrays within each other, so many that the whole submission has `levels` levels."""
    value: Any = 1
    for _ in range(levels - 2):
        value = [value]
    return {"input": {"v": value}}


def sized(size: int) -> dict[str, Any]:
    """Return an input with which the submission has `size` bytes."""
    text = orjson.dumps(submission({"input": {"v": ""}}))
    return {"input": {"v": "x" * (size - len(text))}}


def labels(count: int) -> dict[str, str]:
    return dict.fromkeys(map(str, range(count)), "")


def submission(more: dict[str, Any]) -> dict[str, Any]:
    return {"goal": "x", "kind": "anything", **more}


LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "depth": (nested(56), nested(57)),
    "bytes": (sized(BODY_LIMIT), sized(BODY_LIMIT + 1)),
    "goal": ({"goal": WIDE * 10_000}, {"goal": WIDE * 10_001}),
    "label": ({"metadata": {"k": WIDE * 500}}, {"metadata": {"k": WIDE * 501}}),
    "labels": ({"metadata": labels(32)}, {"metadata": labels(33)}),
    "name of a label": ({"metadata": {"k" * 100_000: "v"}}, None),
    "key": ({"input": {WIDE * 50_000: 1}}, None),
    "keys": ({"input": dict.fromkeys(map(str, range(50_000)), 1)}, None),
    "array": ({"input": {"v": [1] * 400_000}}, None),
    "largest integer": ({"input": {"v": 2**64 - 1}}, {"input": {"v": 2**64}}),
    "least integer": ({"input": {"v": -(2**63)}}, {"input": {"v": -(2**63) - 1}}),
    "number": ({"input": {"v": [sys.float_info.max, -sys.float_info.max, 5e-324, -0.0, 1e16]}}, None),
    "deadline": ({"deadline_s": 604_800}, {"deadline_s": 604_801}),
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_what_is_admitted_at_a_limit_is_stored_and_sent_on(redis_server, client, dsn, tmp_path: Path, limit: str):
    (tmp_path / "anything.yaml").write_text(RECIPE)
    pool = await open_pool(dsn, 2)
    orchestrator = Orchestrator(pool, load_recipes(tmp_path, frozenset({"noop"})), message_builder(), 3600)
    await publish(client, orchestrator.planning.schemas)
    at_limit, further = LIMITS[limit]
    within, beyond = submission(at_limit), None if further is None else submission(further)
    async with reflex(redis_server.url, tmp_path) as http:
        answer = await http.post("/v1/tasks", content=text(within), headers=JSON)
        assert answer.status_code == 202, answer.text
        if beyond is not None:
            refused = await http.post("/v1/tasks", content=text(beyond), headers=JSON)
            assert refused.status_code in {400, 413, 422}, refused.text
    ((entry, fields),) = await client.xrange(TASKS)
    (result,) = await orchestrator.handle([Entry(TASKS, str(entry, "ascii"), 1, fields)])
    (step,) = sends(result)
    assert step.input["task"] == {
        "goal": within["goal"], "input": within.get("input", {}), "metadata": within.get("metadata", {}),
    }  # fmt: skip
    (stored,) = await rows(pool, "SELECT state, submission FROM tasks")
    assert (stored["state"], stored["submission"]) == ("running", within)
    await pool.close()


def text(body: Any) -> bytes:
    """Return it as JSON. orjson itself refuses integers beyond 64 bits."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
