"""A repair round replaces everything after the named step, also what still runs of the round before."""

import pytest

from octollm.contracts import StepError, StepFailed
from octollm.contracts.ids import new_task_id
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import load_recipes
from tests.helpers.orchestrators import done, message_builder, rows, sends, submitted

FORK = """
recipe: pair
version: 1
description: a judge and a second branch, both after the step that is repaired
deadline_s: 60
input: {type: object, properties: {n: {type: integer}}}
steps:
  write: {arm: noop, input: {round: {$: round}}}
  check: {arm: judge, needs: [write], input: {}}
  other: {arm: noop, needs: [write], input: {}}
  style: {arm: judge, needs: [write], input: {}}
repair: {judge: check, redo: write, max: 2}
answer: {$: steps.other.output}
"""


@pytest.fixture
def orchestrator(pool, tmp_path):
    (tmp_path / "pair.yaml").write_text(FORK)
    return Orchestrator(pool, load_recipes(tmp_path, frozenset({"noop", "judge"})), message_builder(), 3600)


@pytest.mark.parametrize("late", ["fails", "judges"])
async def test_a_branch_of_the_last_round_does_not_end_the_task(orchestrator, pool, late):
    task = new_task_id("l0")
    (write,) = sends(*await orchestrator.handle([submitted(task)]))
    after = {one.step: one for one in sends(*await orchestrator.handle([done(write, {})]))}
    (again,) = sends(*await orchestrator.handle([done(after["check"], {"verdict": "fail", "reasons": ["no"]})]))
    assert (again.step, again.round) == ("write", 1)
    if late == "fails":
        error = StepError(code="no_use", message="the old text is no use")
        await orchestrator.handle([done(after["other"], model=StepFailed, outcome="failed", error=error)])
    else:
        await orchestrator.handle([done(after["style"], {"verdict": "fail", "reasons": ["ugly"]})])
    (row,) = await rows(pool, "SELECT state, reason FROM tasks")
    assert row["state"] == "running", row["reason"]
    second = {one.step: one for one in sends(*await orchestrator.handle([done(again, {})]))}
    assert {one.round for one in second.values()} == {1}
    for name in ("check", "other", "style"):
        await orchestrator.handle([done(second[name], {"verdict": "pass"})])
    (row,) = await rows(pool, "SELECT state, reason FROM tasks")
    assert row["state"] == "succeeded", row["reason"]
