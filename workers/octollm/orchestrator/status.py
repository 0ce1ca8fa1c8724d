"""The status of a task as the reflex reads it from Redis: the fields of `task.status.v1`, each as text."""

import orjson

from octollm.contracts import write
from octollm.orchestrator.messages import StatusUpdate
from octollm.orchestrator.state import TaskState

_MOST_OPEN = 200


def status_of(state: TaskState) -> StatusUpdate:
    """All fields, also those that admission has written: the hash may have been lost."""
    fields: dict[str, str | bytes] = {
        "task": state.task,
        "tenant": state.tenant,
        "state": state.state,
        "run": str(state.run),
        "stored": "1",
        "created_at": state.received_at,
        "updated_at": state.updated_at or state.received_at,
    }
    optional = {"kind": state.kind, "reason": state.reason, "detail": state.detail}
    fields |= {name: value for name, value in optional.items() if value is not None}
    if not state.ended:
        fields["open"] = orjson.dumps(_open(state))
    if state.result is not None:
        fields["result"] = write(state.result)
    return StatusUpdate(state.task, state.version, state.ended, fields)


def _open(state: TaskState) -> list[dict[str, str]]:
    """The steps that are out, longest first."""
    sent = [row for row in state.steps.values() if row.state == "sent" and not row.early_results]
    sent.sort(key=lambda row: (row.sent_at, row.step))
    return [{"step": row.step, "arm": row.arm, "sent_at": row.sent_at} for row in sent[:_MOST_OPEN]]
