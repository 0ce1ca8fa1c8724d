"""The history of a run: events as they are stored and shown (`task.event.v1`). Pure."""

from typing import Literal, NamedTuple

import orjson

EventName = Literal[
    "accepted",
    "rejected",
    "planned",
    "step_sent",
    "step_succeeded",
    "step_failed",
    "step_retrying",
    "step_dead",
    "step_cancelled",
    "repair_opened",
    "finished",
]


class TaskEvent(NamedTuple):
    """One event of a run."""

    task: str
    run: int
    seq: int
    """Position within the run, from 1."""
    tenant: str
    at: str
    event: EventName
    detail: str | None
    body: bytes
    """JSON by `task.event.v1`."""

    @classmethod
    def build(
        cls,
        task: str,
        run: int,
        seq: int,
        tenant: str,
        at: str,
        event: EventName,
        detail: str | None = None,
        **about: str | int | None,
    ) -> "TaskEvent":
        """Build an event with its JSON.

        `about`: further fields of the schema; those that are None are left out.

        The JSON is not built with the pydantic model, which takes five times as long;
        `tests/contract/test_task_events.py` validates every kind.
        """
        body: dict[str, str | int] = {
            "task": task, "run": run, "seq": seq, "tenant": tenant, "at": at, "event": event
        }  # fmt: skip
        if detail is not None:
            body["detail"] = detail
        body |= {name: value for name, value in about.items() if value is not None}
        return cls(task, run, seq, tenant, at, event, detail, orjson.dumps(body))
