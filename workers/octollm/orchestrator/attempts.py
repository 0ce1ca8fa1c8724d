"""What a failed attempt calls for: time, a person, or nothing any more. Pure."""

from octollm.contracts import StepDead, StepFailed, StepRetrying
from octollm.errors import NEEDS_PERSON
from octollm.orchestrator.state import Done, ErrorClass


def class_of(done: Done) -> ErrorClass | None:
    """Of an attempt that failed; None also where nobody knows, since it died with its worker."""
    match done:
        case StepFailed():
            return "permanent"
        case StepRetrying() | StepDead() if done.error.code.startswith(NEEDS_PERSON):
            return "needs_person"
        case StepRetrying() | StepDead(reason="failures_exhausted"):
            return "transient"
        case _:
            return None
