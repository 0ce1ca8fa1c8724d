"""What an arm is: a class that is made without arguments and turns one step into its output.

An arm knows neither streams nor stores nor other arms. It returns a JSON object, or raises `PermanentError` (trying
again cannot help) or `TransientError` (it may). Anything else it raises counts as a fault of the arm and is tried
again. It may be run twice for the same step after a crash.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from structlog.stdlib import BoundLogger

from octollm.contracts import StepRequested
from octollm.errors import PermanentError
from octollm.ports import ModelClient, Recall


@dataclass(frozen=True, slots=True)
class ArmContext:
    """What an arm gets beside its step."""

    log: BoundLogger
    """Bound to the task, the step, the tenant and the trace."""
    worker: str
    """The consumer this process is in its group."""
    rules_dir: Path
    """Folder of the rule files that both languages share."""
    recall: Recall | None = None
    """Memory, where this process has one."""
    mind: ModelClient | None = None
    """A model, where one is configured."""


class Arm(Protocol):
    """One kind of work. An arm that asks models says `uses_model = True` in its class, and gets a mind."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """The step's output, a JSON object. `step.input` has its references resolved."""


def invalid(message: str) -> PermanentError:
    """The step's input is not what this arm takes; `message` names the field and never its value."""
    return PermanentError("invalid_input", message)


def closed(value: dict[str, Any], required: set[str], optional: set[str], place: str = "input") -> None:
    """Raises PermanentError unless the object has exactly these fields."""
    missing, unknown = required - set(value), set(value) - required - optional
    if missing:
        raise invalid(f"{place}.{min(missing)} is missing")
    if unknown:
        raise invalid(f"{place}.{min(unknown)[:80]} is not known; there are {', '.join(sorted(required | optional))}")
