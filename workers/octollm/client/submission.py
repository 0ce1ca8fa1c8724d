"""The body and the key of a submission. Pure."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import ValidationError

from octollm.contracts import TaskSubmission, write
from octollm.contracts.ids import as_text, new_ulid
from octollm.errors import ParameterError

Priority = Literal["high", "normal", "low"]
_KEY = re.compile(r"[!-~]{1,255}")
_DURABILITY = re.compile(r"[a-z0-9()+]{1,64}")


def body_of(
    goal: str,
    kind: str | None,
    input: Mapping[str, Any] | None,  # noqa: A002  the field's own word
    priority: Priority | None,
    deadline: timedelta | None,
    metadata: Mapping[str, str] | None,
    not_before: datetime | None = None,
) -> bytes:
    """`task.submission.v1`. Raises ParameterError that names the field."""
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
            )
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ParameterError(field, f"{field}: {first['msg']}") from error
    except TypeError as error:
        raise ParameterError("input", f"input must hold what JSON can: {error}") from error


def key_of(given: str | None) -> str:
    """The caller's idempotency key, or one of our own: with one, sending again is safe."""
    if given is None:
        return new_ulid()
    if _KEY.fullmatch(given) is None:
        raise ParameterError("idempotency_key", "an idempotency key has 1 to 255 visible ASCII characters")
    return given


def durability_of(asked: str | None) -> dict[str, str]:
    """The header that asks for more than the deployment promises; the reflex knows which modes there are."""
    if asked is None:
        return {}
    if _DURABILITY.fullmatch(asked) is None:
        raise ParameterError("durability", "a durability is one of redis, fsync, replicated, replicated(n) and stored")
    return {"OctoLLM-Durability": asked}
