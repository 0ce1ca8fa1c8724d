"""Converts between database rows and values; no other module knows both."""

from collections.abc import Mapping
from typing import Any

import asyncpg
import orjson

from octollm.contracts import StepDone, TaskResult, read, write
from octollm.contracts.ids import as_text
from octollm.orchestrator.intake import step_ended
from octollm.orchestrator.state import Attempt, StepRow, TaskState
from octollm.orchestrator.task_events import TaskEvent
from octollm.plans.plan import Plan
from octollm.plans.stored import as_stored


def task_row(state: TaskState) -> dict[str, Any]:
    """Return the row of `tasks`."""
    return {
        "tenant": state.tenant,
        "kind": state.kind,
        "source": state.source,
        "priority": state.priority,
        "idempotency_key": state.idempotency_key,
        "fingerprint": state.fingerprint,
        "submission": state.submission,
        "redactions": state.redactions,
        "traceparent": state.traceparent,
        "received_at": state.received_at,
        **changes(state),
    }


def changes(state: TaskState) -> dict[str, Any]:
    """Return the columns of `tasks` that can change, and its key."""
    finished_at = None if state.result is None else state.result.finished_at
    return {
        "id": state.task,
        "state": state.state,
        "reason": state.reason,
        "detail": state.detail,
        "run": state.run,
        "round": state.round,
        "version": state.version,
        "seq": state.seq,
        "deadline_at": state.deadline_at,
        "not_before": state.starts_at,
        "updated_at": state.updated_at or state.received_at,
        "result": None if state.result is None else orjson.Fragment(write(state.result)),
        "memory": state.memory,
        "finished_at": finished_at,
        "result_sent_at": finished_at,
    }


def run_row(state: TaskState) -> dict[str, Any]:
    """Return the row of `runs` of a task that has a plan."""
    plan = None if state.plan is None else orjson.Fragment(state.plan.written)
    return {"task": state.task, "run": state.run, "plan": plan}


def step_row(state: TaskState, row: StepRow) -> dict[str, Any]:
    """Return the row of `steps`. A large output stays in `outputs`, where the arm has stored it."""
    return {
        "task": state.task,
        "run": state.run,
        "step": row.step,
        "round": row.round,
        "arm": row.arm,
        "state": row.state,
        "attempt": row.attempt,
        "failures": row.failures,
        "sent_by": row.sent_by,
        "sent_at": row.sent_at,
        "output": row.output if row.output_sha256 is None else None,
        "output_sha256": row.output_sha256,
        "error": row.error,
        "worker": row.worker,
        "delivery": row.delivery,
        "duration_ms": row.duration_ms,
        "digest": row.digest,
        # As text: digests are of the arm's JSON, and jsonb changes the form of numbers.
        "early_results": [write(one.done).decode() for one in row.early_results] or None,
    }


def attempt_row(state: TaskState, attempt: Attempt) -> dict[str, Any]:
    """Return the row of `attempts`."""
    return {"task": state.task, "run": state.run, **attempt._asdict()}


def event_row(event: TaskEvent) -> dict[str, Any]:
    """Return the row of `events`."""
    return {"task": event.task, "run": event.run, "seq": event.seq, "at": event.at, "body": orjson.Fragment(event.body)}


def artifact_row(state: TaskState, result: TaskResult) -> dict[str, Any]:
    """Return the row of `artifacts` of an earlier run, as memory would write it."""
    return {
        "task": result.task,
        "run": result.run,
        "tenant": result.tenant,
        "title": state.submission.get("goal", "")[:500],
        "answer": result.answer,
        "created_at": result.finished_at,
    }


def state_of(row: asyncpg.Record, steps: Mapping[tuple[str, int], StepRow]) -> TaskState:
    """Return the state from a row of `tasks`, with its run's `plan` if the row has one, and its steps."""
    return TaskState(
        task=row["id"],
        tenant=row["tenant"],
        submission=as_stored(row["submission"]),
        source=row["source"],
        idempotency_key=row["idempotency_key"],
        fingerprint=row["fingerprint"],
        redactions=row["redactions"],
        priority=row["priority"],
        received_at=as_text(row["received_at"]),
        traceparent=row["traceparent"],
        state=row["state"],
        reason=row["reason"],
        detail=row["detail"],
        run=row["run"],
        round=row["round"],
        version=row["version"],
        seq=row["seq"],
        deadline_at=None if row["deadline_at"] is None else as_text(row["deadline_at"]),
        starts_at=None if row["not_before"] is None else as_text(row["not_before"]),
        updated_at=as_text(row["updated_at"]),
        plan=None if row.get("plan") is None else Plan.from_json(row["plan"]),
        steps=steps,
        result=None if row["result"] is None else TaskResult.model_validate(row["result"]),
        memory=row["memory"],
    )


def step_of(row: asyncpg.Record) -> StepRow:
    """Return a row of `steps` joined with its stored output.

    Stored outputs of early results are not loaded.
    """
    return StepRow(
        step=row["step"],
        round=row["round"],
        arm=row["arm"],
        state=row["state"],
        attempt=row["attempt"],
        sent_by=row["sent_by"],
        sent_at=as_text(row["sent_at"]),
        failures=row["failures"],
        output=_output(row),
        output_sha256=row["output_sha256"],
        error=row["error"],
        duration_ms=row["duration_ms"],
        worker=row["worker"],
        delivery=row["delivery"],
        digest=row["digest"],
        early_results=tuple(step_ended(read(StepDone, text.encode()).root) for text in row["early_results"] or ()),
    )


def _output(row: asyncpg.Record) -> dict[str, Any] | None:
    output = row["output"] if row["stored"] is None else orjson.loads(row["stored"])
    return None if output is None else as_stored(output)
