"""The interface of an arm.

An arm is a class without constructor arguments that turns the input of a step into its output.

An arm runs on the event loop of its process, so its own code has to be short. What it does with untrusted content
(parse code, check schemas, read data) goes through `ArmContext.isolated`, unless it is small and linear.

An arm does not know streams, stores or other arms. It returns a JSON object, or raises `PermanentError` (a retry cannot
help) or `TransientError` (a retry may help). Any other exception is judged by `faults.py`: the
step fails with its class and message, or is retried if the cause may pass.
After a crash, an arm may run twice for the same step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from structlog.stdlib import BoundLogger

from octollm.contracts import StepRequested
from octollm.errors import PermanentError
from octollm.ports import Isolation, MemoryStore, ModelClient

Result = TypeVar("Result")
SMALL = 16_384
"""Characters of content that an arm may read on the event loop, if its work is linear: a few milliseconds."""


@dataclass(slots=True)  # not frozen, as there is one for each step: see `StepIsolation`
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
    isolation: Isolation | None = None
    """Processes for this step's untrusted content; None: `isolated` calls functions directly."""

    async def isolated(self, function: Callable[..., Result], *args: object) -> Result:
        """Call a function of a module on untrusted content, away from the event loop; see `Isolation.run`.

        For everything that may take more than linear time or more than a few milliseconds.
        """
        if self.isolation is None:
            return function(*args)
        return await self.isolation.run(function, *args)


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


def is_small(value: Any) -> bool:  # noqa: ANN401  any JSON value
    """Whether a JSON value has at most SMALL characters and items in all."""
    left, waiting = SMALL, [value]
    while waiting and left >= 0:
        one = waiting.pop()
        left -= 1
        if isinstance(one, str):
            left -= len(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
            waiting.extend(one)
        elif isinstance(one, list):
            waiting.extend(one)
    return left >= 0
