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
    metadata: Mapping[str, str] | None = None,
    submission: Mapping[str, Any] | None = None,
    open_steps: Sequence[Mapping[str, str]],
    result: Any,  # noqa: ANN401  JSON by `task.result.v1`, as a value or as an orjson.Fragment
    result_bytes: int | None = None,
) -> dict[str, Any]:
    """Return the status of a task that is stored in Postgres, without the fields that have no value.

    `metadata`: of the submission. `submission`: the whole of it, for answers that have it; never for Redis.
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
        "metadata": metadata,
        "submission": submission,
        "open": open_steps,
        "result": result,
        "result_bytes": result_bytes,
    }
    return {name: value for name, value in found.items() if value not in (None, [], (), {})}


def status_hash(status: Mapping[str, Any]) -> dict[str, str | bytes]:
    """Return a status as the fields of its Redis hash.

    Texts stay as they are, true is `1`, and everything else is JSON.

    Without `version`, which the script that writes the hash sets.
    """
    fields: dict[str, str | bytes] = {}
    for name, value in status.items():
        if name != "version":
            fields[name] = value if isinstance(value, str) else b"1" if value is True else orjson.dumps(value)
    return fields
