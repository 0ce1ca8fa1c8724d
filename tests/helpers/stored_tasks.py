"""Tasks in a database, made by the real orchestrator and archive, for those who ask the API."""

from typing import Any
from uuid import uuid4

import asyncpg
import httpx

from octollm.contracts import DeadLetter, StepError, StepFailed, StepRetrying, StepSucceeded, StoredOutput, write
from octollm.contracts.ids import new_task_id, utc_now
from octollm.orchestrator.archive import Archive
from octollm.orchestrator.service import Orchestrator
from tests.helpers.orchestrators import done, entry_of, message_builder, sends, submitted

LARGE = {"n": 1, "text": "x" * 100}
LARGE_SHA256 = "b" * 64


async def accepted(orchestrator: Orchestrator, **submission: Any) -> str:
    """A task whose first two steps have been sent."""
    task = new_task_id("l0")
    await orchestrator.handle([submitted(task, **submission)])
    return task


async def finished(orchestrator: Orchestrator, pool: asyncpg.Pool) -> str:
    """A task that succeeded: its left step on a second attempt, its right step with an output kept apart."""
    task = new_task_id("l0")
    left, right = sends(*(await orchestrator.handle([submitted(task)])))
    retrying = done(
        left, model=StepRetrying, outcome="retrying", error=StepError(code="busy", message="try later"),
        next_attempt=2, failures=1, delay_ms=5,
    )  # fmt: skip
    await orchestrator.handle([retrying])
    again = left.model_copy(update={"attempt": 2, "failures": 1})
    await pool.execute(
        "INSERT INTO outputs (tenant, sha256, body) VALUES ('default', $1, $2)", LARGE_SHA256, write(LARGE)
    )
    stored = StoredOutput(at="postgres", sha256=LARGE_SHA256, bytes=len(write(LARGE)))
    apart = done(right, model=StepSucceeded, outcome="succeeded", output=stored)
    (both,) = sends(*(await orchestrator.handle([done(again, {"n": 1}), apart])))
    await orchestrator.handle([done(both, {"sum": 2})])
    return task


async def failed(orchestrator: Orchestrator) -> str:
    """A task whose left step failed for good."""
    task = new_task_id("l0")
    left, _ = sends(*(await orchestrator.handle([submitted(task)])))
    wrong = done(left, model=StepFailed, outcome="failed", error=StepError(code="broken", message="it broke"))
    await orchestrator.handle([wrong])
    return task


async def store_dead_letter(pool: asyncpg.Pool, entry: str, original: bytes, **changes: Any) -> None:
    """A stored dead letter."""
    body = DeadLetter(
        **{
            "reason": "malformed", "message": "not JSON at character 0", "stage": "before_admission",
            "stream": "ingest:default", "group": "reflex", "entry": entry, "consumer": "c", "delivery": 1,
            "type": "", "id": "", "tenant": "default", "bytes": 99, "at": utc_now(), **changes,
        }
    )  # fmt: skip
    await Archive(pool, message_builder()).handle(
        [entry_of("dead.dead_letter.v1", body.id, body.tenant, "", write(body), f"dead {entry}", original)]
    )


async def model_call(pool: asyncpg.Pool, task: str, **changes: Any) -> None:
    """One call to a model, as the journal keeps it."""
    row = {
        "tenant": "default", "task": task, "run": 1, "step": "left", "round": 0, "purpose": "answer", "call": 1,
        "swarm_member": 0, "repair": 0, "request_sha256": 2 * uuid4().hex, "arm": "noop", "answer": {"text": ""},
        "attempt": 1, "delivery": 1, "asked_at": "2026-01-31T12:00:00Z", "answer_id": str(uuid4()), "surplus_calls": 0,
        "surplus_cost_usd": 0,
        "provider": "anthropic", "model": "m-1", "input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 2,
        "cache_write_tokens": 1, "cost_usd": "0.1", "answered_at": "2026-01-31T12:00:00Z", **changes,
    }  # fmt: skip
    await pool.execute("INSERT INTO model_calls SELECT * FROM jsonb_populate_record(NULL::model_calls, $1)", row)


async def get(api: httpx.AsyncClient, path: str, **params: Any) -> dict[str, Any]:
    """The document of a 200."""
    answer = await api.get(path, params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def walk(api: httpx.AsyncClient, path: str, by: str = "cursor", **params: Any) -> list[Any]:
    """All items, page by page."""
    items: list[Any] = []
    while True:
        page = await get(api, path, **params)
        assert set(page) >= {"items", "next"}
        assert len(page["items"]) <= params.get("limit", 200)
        items += page["items"]
        if page["next"] is None:
            return items
        params[by] = page["next"]
