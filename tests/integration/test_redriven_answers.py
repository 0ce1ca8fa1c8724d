"""The answer of a run that another run replaces is in memory, whether memory was in time or not."""

from typing import Any

import pytest

from octollm.contracts import TaskRedrive, TaskResult, write
from octollm.contracts.ids import new_task_id, utc_now
from octollm.memory.dense import Dense
from octollm.memory.indexer import Indexer
from octollm.memory.stored_memory import StoredMemory
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import load_recipes
from octollm.protocol.handoff import Entry
from tests.helpers.memory_fakes import HashingEmbedder, ListStore
from tests.helpers.orchestrators import done, entry_of, message_builder, result, rows, sends, submitted

JUDGED = """
recipe: pair
version: 1
description: a text that the judge refuses
deadline_s: 60
input: {type: object, properties: {n: {type: integer}}}
steps:
  write: {arm: noop, input: {}}
  check: {arm: judge, needs: [write], input: {}}
answer: {$: steps.write.output}
"""
LARGE = "x" * 20_000
"""More than a message for memory carries."""
REFUSED = {"verdict": "fail", "reasons": ["no"]}


@pytest.fixture
def orchestrator(pool, tmp_path):
    (tmp_path / "pair.yaml").write_text(JUDGED)
    return Orchestrator(pool, load_recipes(tmp_path, frozenset({"noop", "judge"})), message_builder(), 3600)


@pytest.fixture
def memory(pool):
    return Indexer(pool, StoredMemory(pool, Dense(HashingEmbedder(), ListStore())).documents)


def wish(task: str, run: int) -> Entry:
    body = write(TaskRedrive(task=task, tenant="default", run=run, requested_at=utc_now()))
    return entry_of("task.redrive.v1", task, "default", "", body, f"done {task} {run}")


def for_memory(found: TaskResult) -> Entry:
    return entry_of("task.result.v1", found.task, found.tenant, "", write(found), f"results {found.task}")


async def judged(orchestrator: Orchestrator, answer: Any, text: str, *more: Entry) -> tuple[Any, ...]:
    """Let the judge refuse a text; the answers to the judge's verdict and to `more`, in one transaction."""
    (first,) = sends(answer)
    (check,) = sends(*await orchestrator.handle([done(first, {"text": text})]))
    return tuple(await orchestrator.handle([done(check, REFUSED), *more]))


async def artifacts(pool: Any) -> dict[int, Any]:
    return {row["run"]: row["answer"] for row in await rows(pool, "SELECT run, answer FROM artifacts ORDER BY run")}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("text", ["short", LARGE])
async def test_a_redrive_before_memory_was_in_time_keeps_the_answer(orchestrator, pool, memory, text, together):
    task = new_task_id("l0")
    (accepted,) = await orchestrator.handle([submitted(task, goal="write it")])
    if together:
        ended, opened = await judged(orchestrator, accepted, text, wish(task, 1))
    else:
        (ended,) = await judged(orchestrator, accepted, text)
        (opened,) = await orchestrator.handle([wish(task, 1)])
    found = result(ended)
    assert found is not None
    assert (found.answer_bytes is not None) == (text == LARGE)
    assert await memory.handle([for_memory(found)]) == [None]
    assert await artifacts(pool) == {1: {"text": text}}
    (again,) = await judged(orchestrator, opened, "second")
    await orchestrator.handle([wish(task, 2)])
    second = result(again)
    assert second is not None
    assert await memory.handle([for_memory(second), for_memory(found)]) == [None, None]
    assert await artifacts(pool) == {1: {"text": text}, 2: {"text": "second"}}
    titles = await rows(pool, "SELECT DISTINCT title, text, tenant FROM artifacts")
    assert [tuple(row) for row in titles] == [("write it", "", "default")]


async def test_what_memory_has_written_before_stays(orchestrator, pool, memory):
    task = new_task_id("l0")
    (accepted,) = await orchestrator.handle([submitted(task, goal="write it")])
    (ended,) = await judged(orchestrator, accepted, LARGE)
    found = result(ended)
    assert found is not None
    assert await memory.handle([for_memory(found)]) == [None]
    before = await rows(pool, "SELECT * FROM artifacts")
    await orchestrator.handle([wish(task, 1)])
    assert await rows(pool, "SELECT * FROM artifacts") == before
