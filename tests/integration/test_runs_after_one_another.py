"""A redrive while steps of the earlier run are executed: the runs follow one another, with real workers and stores."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from octollm.contracts import StepRequested, TaskRedrive, write
from octollm.contracts.ids import as_text, utc_now
from octollm.protocol.handoff import Handoff
from octollm.protocol.run_watch import RedisClock, RunWatch
from octollm.resources import schemas_path
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import load_topology
from tests.helpers.consumers import KEYS, Member, judge
from tests.helpers.tasks import ended, put
from tests.helpers.waiting import until

RECIPES = {
    "long": """
recipe: long
version: 1
description: two steps next to each other that take their time
deadline_s: 60
input: {type: object, additionalProperties: false, properties: {}}
steps:
  left: {arm: judge, input: {}}
  right: {arm: judge, input: {}}
answer: {$: steps.left.output}
""",
    "quick": """
recipe: quick
version: 1
description: one step that ends at once
deadline_s: 60
input: {type: object, additionalProperties: false, properties: {}}
steps:
  quick: {arm: judge, input: {}}
answer: {$: steps.quick.output}
""",
}


class Stubborn:
    """An arm whose steps of run 1 go on until they are let go, whatever cancels them."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.running: set[tuple[int, str]] = set()
        self.overlaps: list[set[tuple[int, str]]] = []
        """What ran while steps of two runs did."""

    async def __call__(self, step: StepRequested) -> dict[str, Any]:
        if step.step == "quick":
            return {}
        one = (step.run, step.step)
        self.running.add(one)
        if len({run for run, _ in self.running}) > 1:
            self.overlaps.append(set(self.running))
        try:
            while step.run == 1 and not self.let_go.is_set():
                try:
                    await self.let_go.wait()
                except asyncio.CancelledError:
                    continue
        finally:
            self.running.discard(one)
        return {"run": step.run}


@pytest.mark.parametrize("end", ["expired", "failed"])
async def test_a_redrive_waits_until_the_steps_of_the_earlier_run_have_stopped(
    redis_server, client, dsn, tmp_path, monkeypatch, end
):
    (tmp_path / "recipes").mkdir()
    for name, recipe in RECIPES.items():
        (tmp_path / "recipes" / f"{name}.yaml").write_text(recipe)
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_ORCHESTRATOR_RECIPES_DIR", str(tmp_path / "recipes"))
    settings, stop, arm = load_settings(), asyncio.Event(), Stubborn()
    topology = load_topology(topology_path(settings), schemas_path())
    orchestrator = asyncio.create_task(run_roles(["orchestrator"], settings, topology, concurrency=None, stop=stop))
    member = Member(redis_server.url, client, judge(), arm, watch=RunWatch(client, "l0", RedisClock()))
    await member.start()
    try:
        # The next run has as long, and waits for a second of it.
        deadline = {"deadline_s": 8} if end == "expired" else {}
        task = await put(client, kind="long", input={}, **deadline)

        async def status(name: str) -> str:
            return ((await client.hget(KEYS.status(task), name)) or b"").decode()

        async def both_run() -> bool:
            return arm.running == {(1, "left"), (1, "right")}

        async def has_ended() -> bool:
            return await status("state") == end

        async def waits() -> bool:
            return await status("run") == "2"

        async def succeeded() -> bool:
            return await status("state") == "succeeded"

        await until(both_run)
        if end == "failed":
            await fail(client, task)
        await until(has_ended)
        body = write(TaskRedrive(task=task, tenant="default", run=1, requested_at=utc_now()))
        for _ in range(2):  # a client that repeats its request
            message: dict[str, str | bytes] = {"type": "task.redrive.v1", "id": task, "tenant": "default", "body": body}
            await Handoff(client, "l0", "", "w").redrive(task, "default", 1, 60, message)
        await until(waits)
        # The job that starts what is due has started a task that was due later.
        soon = as_text(datetime.now(UTC) + timedelta(seconds=1))
        assert (await ended(client, await put(client, kind="quick", input={}, not_before=soon)))["state"] == "succeeded"
        assert arm.running == {(1, "left"), (1, "right")}
        assert await status("state") == "accepted"
        arm.let_go.set()
        await until(succeeded)
        assert arm.overlaps == []
        assert await status("run") == "2"
        assert b'"answer":{"run":2}' in await client.hget(KEYS.status(task), "result")
        assert await client.hlen(KEYS.in_flight) == 0
    finally:
        arm.let_go.set()
        await member.stop(5)
        stop.set()
        await orchestrator


async def fail(client: Any, task: str) -> None:
    """End one of the two steps as failed for good, as another worker would."""
    body = {
        "task": task, "run": 1, "step": "left", "round": 0, "attempt": 1, "tenant": "default", "arm": "judge",
        "worker": "other", "delivery": 1, "finished_at": utc_now(), "duration_ms": 1, "outcome": "failed",
        "error": {"code": "no_use", "message": "no use"},
    }  # fmt: skip
    ident = f"{task}.1.left.0.1"
    message = {"type": "step.done.v1", "id": ident, "tenant": "default", "traceparent": "", "body": write(body)}
    await client.xadd(KEYS.done, message)
