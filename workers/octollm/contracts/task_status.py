"""The document `task.status.v1`: built here for everything that writes or answers a task's status."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson


def task_status(
    *,
    task: str,
    tenant: str,
    kind: str | None,
    state: str,
    run: int,
    version: int,
    reason: str | None,
    detail: str | None,
    created_at: str,
    updated_at: str,
    open_steps: Sequence[Mapping[str, str]],
    result: Any,  # noqa: ANN401  JSON by `task.result.v1`, as a value or as an orjson.Fragment
    result_bytes: int | None = None,
) -> dict[str, Any]:
    """Return the status of a task that is stored in Postgres, without the fields that have no value.

    `open_steps`: `step`, `arm` and `sent_at` of each step in flight. `result_bytes`: size of a result that is left out.
    """
    found = {
        "task": task,
        "tenant": tenant,
        "kind": kind,
        "state": state,
        "run": run,
        "version": version,
        "stored": True,
        "reason": reason,
        "detail": detail,
        "created_at": created_at,
        "updated_at": updated_at,
        "open": open_steps,
        "result": result,
        "result_bytes": result_bytes,
    }
    return {name: value for name, value in found.items() if value not in (None, [], ())}


def status_hash(status: Mapping[str, Any]) -> dict[str, str | bytes]:
    """Return a status as the fields of its Redis hash: texts as they are, the rest as JSON, and `1` for true.

    Without `version`, which the script that writes the hash sets.
    """
    fields: dict[str, str | bytes] = {}
    for name, value in status.items():
        if name != "version":
            fields[name] = value if isinstance(value, str) else b"1" if value is True else orjson.dumps(value)
    return fields
