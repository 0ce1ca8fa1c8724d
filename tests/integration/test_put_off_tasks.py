"""Tasks that were put off, on a real Postgres: each begins once, and its deadline counts from then."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from octollm.contracts.ids import as_text, new_task_id
from tests.helpers.orchestrators import cancel, result, rows, sends, status, submitted


async def nobody(_task: str, _fields: Sequence[str]) -> int:
    """No step of an earlier run is executed."""
    return 0


async def test_it_waits_in_the_database_and_begins_once(orchestrator, pool):
    moment = datetime.now(UTC) + timedelta(hours=1)
    task, other = new_task_id("l0"), new_task_id("l0")
    answers = await orchestrator.handle([submitted(one, not_before=as_text(moment)) for one in (task, other)])
    assert sends(*answers) == []
    assert {status(answer).fields["state"] for answer in answers} == {"accepted"}
    assert sends(*await orchestrator.handle([submitted(task, not_before=as_text(moment))])) == []
    (first, _) = await rows(pool, "SELECT state, deadline_at - not_before AS remaining FROM tasks")
    assert tuple(first) == ("accepted", timedelta(seconds=60))
    assert await orchestrator.start_due(10, nobody) == []
    await orchestrator.handle([cancel(other)])
    await pool.execute("UPDATE tasks SET not_before = now() - interval '1 s'")
    both = await asyncio.gather(orchestrator.start_due(10, nobody), orchestrator.start_due(10, nobody))
    begun = [answer for found in both for answer in found]
    assert [(step.task, step.step) for step in sends(*begun)] == [(task, "left"), (task, "right")]
    assert all(decision.repeats for decision in begun)  # the reconciler may have published it before
    # Its status is published again until that is recorded; its steps are left to the reconciler.
    (again,) = await orchestrator.unpublished(10)
    assert (status(again), sends(again), result(again)) == (status(begun[0]), [], None)
    await orchestrator.mark_published([task])
    assert (await orchestrator.unpublished(10), await orchestrator.start_due(10, nobody)) == ([], [])
    found = await rows(pool, "SELECT state FROM tasks ORDER BY state")
    assert [row["state"] for row in found] == ["cancelled", "running"]
