"""Messages as the reflex and the arms write them, for tests of every kind."""

from typing import Any

from octollm.contracts import StepRequested, TaskSubmission, TaskSubmitted, write
from octollm.contracts.ids import new_task_id, utc_now

Fields = dict[Any, Any]
"""Of a stream entry; redis-py takes only the exact type that it declares."""


def submitted_body(task: str, key: str | None = None, **submission: Any) -> bytes:
    """A task that admission let through."""
    body = TaskSubmitted(
        task=task,
        tenant="default",
        source="http",
        received_at=utc_now(),
        idempotency_key=key or task,
        fingerprint="0" * 64,
        redactions={},
        submission=TaskSubmission(**{"goal": "keep it", **submission}),
    )
    return write(body)


def submitted_entry(lane: str = "l0", **submission: Any) -> tuple[str, str, Fields]:
    """A new task's id, the stream it belongs on, and its fields there."""
    task = new_task_id(lane)
    body = submitted_body(task, **submission)
    fields = {
        "type": "task.submitted.v1",
        "id": task,
        "tenant": "default",
        "traceparent": "",
        "body": body,
    }
    return task, f"{{{lane}}}:tasks:normal", fields


def about(step: StepRequested) -> dict[str, Any]:
    """What every form of `step.done.v1` says of the attempt."""
    names = ("task", "run", "step", "round", "attempt", "tenant", "arm")
    reported = {name: getattr(step, name) for name in names}
    return {**reported, "worker": "w", "delivery": 1, "finished_at": utc_now(), "duration_ms": 3}
