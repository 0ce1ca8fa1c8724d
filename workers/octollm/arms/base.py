"""The interface of an arm.

An arm is a class without constructor arguments that turns the input of a step into its output.

An arm does not know streams, stores or other arms. It returns a JSON object, or raises `PermanentError` (a retry cannot
help) or `TransientError` (a retry may help). Any other exception counts as a bug in the arm, and the step is retried.
After a crash, an arm may run twice for the same step.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from structlog.stdlib import BoundLogger

from octollm.contracts import StepRequested
from octollm.errors import PermanentError
from octollm.ports import MemoryStore, ModelClient


@dataclass(frozen=True, slots=True)
class ArmContext:
    """What an arm gets in addition to its step."""

    log: BoundLogger
    """Logger with the task, the step, the tenant and the trace."""
    worker: str
    """Name of this process in its consumer group."""
    rules_dir: Path
    """Folder of the redaction and secret rules."""
    memory: MemoryStore | None = None
    """The memory store, if this process has one."""
    model: ModelClient | None = None
    """The model client, if one is configured."""


class Arm(Protocol):
    """One kind of work. An arm that needs a model sets `uses_model = True` in its class."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """Return the output of a step, a JSON object. References in `step.input` are resolved."""


def invalid(message: str) -> PermanentError:
    """Return the error for an invalid input.

    `message` must name the field and must not contain its value.
    """
    return PermanentError("invalid_input", message)


def require_fields(value: dict[str, Any], required: set[str], optional: set[str], place: str = "input") -> None:
    """Raise PermanentError unless `value` has all `required` and only `optional` further fields.

    `place`: path of `value` in the step, for the message.
    """
    missing, unknown = required - set(value), set(value) - required - optional
    if missing:
        raise invalid(f"{place}.{min(missing)} is missing")
    if unknown:
        raise invalid(f"{place}.{min(unknown)[:80]} is unknown; known fields: {', '.join(sorted(required | optional))}")
