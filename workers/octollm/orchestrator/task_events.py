"""Events of a run as they are stored and shown: `task.event.v1`, written once for both. Pure."""

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


class Told(NamedTuple):
    """One event of a run."""

    task: str
    run: int
    seq: int
    tenant: str
    at: str
    event: EventName
    detail: str | None
    body: bytes
    """`task.event.v1`."""

    @classmethod
    def of(
        cls,
        task: str,
        run: int,
        seq: int,
        tenant: str,
        at: str,
        event: EventName,
        detail: str | None = None,
        **about: str | int | None,
    ) -> "Told":
        """`about`: the schema's other fields, left out where they are None.

        Written without its model, which takes five times as long: `tests/contract/test_told_events.py` reads each kind
        back.
        """
        body: dict[str, str | int] = {
            "task": task, "run": run, "seq": seq, "tenant": tenant, "at": at, "event": event
        }  # fmt: skip
        if detail is not None:
            body["detail"] = detail
        body |= {name: value for name, value in about.items() if value is not None}
        return cls(task, run, seq, tenant, at, event, detail, orjson.dumps(body))
