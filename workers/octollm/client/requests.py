"""Build requests: paths, query parameters, the body and the headers of a submission. Pure."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote

import orjson
from pydantic import ValidationError

from octollm.contracts import Callback, TaskSubmission, write
from octollm.contracts.ids import as_text, new_ulid
from octollm.errors import ParameterError

TASKS = "/v1/tasks"
BATCH = "/v1/tasks:batch"
COSTS = "/v1/costs"
DEAD_LETTERS = "/v1/dead-letters"
CALLBACKS = "/v1/callbacks"
CALLBACK_ENDPOINTS = "/v1/callback-endpoints"
JSON = "application/json"
NDJSON = "application/x-ndjson"
MAX_WAIT_S = 25
"""Longest wait in one request: shorter than the read timeout of the connection, and than what the reflex allows."""
Priority = Literal["high", "normal", "low"]
_MAX_BATCH_ITEMS = 1000
_MAX_BATCH_BYTES = 512 * 1024  # below the smallest body limit that is useful for batches
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
_DURABILITY = re.compile(r"[a-z0-9()+]{1,64}")


def task_path(task: str, suffix: str = "") -> str:
    """Return the path of a task. `task` is quoted, so that it stays one segment whatever it contains."""
    return f"{TASKS}/{quote(task, safe='', errors='replace').replace('.', '%2E')}{suffix}"


def webhook_path(source: str) -> str:
    """Return the path that receives the webhooks of `source`."""
    return f"/v1/webhooks/{quote(source, safe='', errors='replace')}"


def query(**values: object) -> dict[str, str]:
    """Return query parameters as text, without those that are None.

    Raises ParameterError for text with surrogates.
    """
    parameters = {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in values.items()
        if value is not None
    }
    for name, text in parameters.items():
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ParameterError(name, f"{name} is not UTF-8 text")
    return parameters


def submission_body(
    goal: str,
    kind: str | None,
    input: Mapping[str, Any] | None,  # noqa: A002  the field's name on the wire
    priority: Priority | None,
    deadline: timedelta | None,
    metadata: Mapping[str, str] | None,
    not_before: datetime | None,
    callback: str | None,
) -> bytes:
    """Return a `task.submission.v1` as JSON. Raises ParameterError with the field that is invalid."""
    if not_before is not None and not_before.tzinfo is None:
        raise ParameterError("not_before", "not_before needs a time zone, for example datetime.now(UTC)")
    if not _is_finite(input):
        raise ParameterError("input", "input must contain JSON values only: NaN and infinity are none")
    try:
        return write(
            TaskSubmission(
                goal=goal,
                kind=kind,
                input=None if input is None else dict(input),
                priority=priority,
                deadline_s=None if deadline is None else round(deadline.total_seconds()),
                not_before=None if not_before is None else as_text(not_before),
                metadata=None if metadata is None else dict(metadata),
                callback=None if callback is None else Callback(url=callback),
            )
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ParameterError(field, f"{field}: {first['msg']}") from error
    except TypeError as error:
        raise ParameterError("input", f"input must contain JSON values only: {error}") from error


def _is_finite(value: object) -> bool:
    """Whether a value contains no NaN and no infinity, which the serializer would write as null."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return False
        if isinstance(one, (Mapping, list, tuple)) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, Mapping) else one)
    return True


def batches(tasks: Iterable[Mapping[str, Any]]) -> Iterator[list[bytes]]:
    """Yield tasks as lines of JSON, as many together as one request may have.

    A task without `idempotency_key` gets a new one, so that sending it again is safe. Raises ParameterError for a task
    that cannot be sent.
    """
    lines, size = list[bytes](), 0
    for task in tasks:
        line = _line(task)
        if lines and (len(lines) == _MAX_BATCH_ITEMS or size + len(line) > _MAX_BATCH_BYTES):
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield lines


def _line(task: Mapping[str, Any]) -> bytes:
    if not _is_finite(task):
        raise ParameterError("input", "a task must contain JSON values only: NaN and infinity are none")
    try:
        return orjson.dumps({"idempotency_key": new_ulid(), **task})
    except TypeError as error:
        raise ParameterError("input", f"a task must contain JSON values only: {error}") from error


def batch_headers(durability: str | None) -> dict[str, str]:
    """Return the headers of a batch. Raises ParameterError like `submission_headers`."""
    headers = submission_headers(None, durability)
    del headers["Idempotency-Key"]
    return {**headers, "Content-Type": NDJSON}


def submission_headers(idempotency_key: str | None, durability: str | None) -> dict[str, str]:
    """Return the headers of a submission.

    Without `idempotency_key` a new key makes sending it again safe.

    Raises ParameterError when one of the two cannot be a header. The reflex decides which durabilities exist.
    """
    if idempotency_key is not None and _IDEMPOTENCY_KEY.fullmatch(idempotency_key) is None:
        raise ParameterError("idempotency_key", "an idempotency key has 1 to 255 visible ASCII characters")
    headers = {"Content-Type": JSON, "Idempotency-Key": new_ulid() if idempotency_key is None else idempotency_key}
    if durability is not None:
        if _DURABILITY.fullmatch(durability) is None:
            raise ParameterError(
                "durability", "durability is one of redis, fsync, replicated, replicated(n) and stored"
            )
        headers["OctoLLM-Durability"] = durability
    return headers
