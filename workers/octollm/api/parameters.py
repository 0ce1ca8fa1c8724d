"""What may be asked, and how it is checked: filters, pages, ids, and whose tenant asks."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Depends, Header, Path, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from octollm.contracts.answers import CostGroup, TaskStateName
from octollm.contracts.ids import is_task_id
from octollm.errors import AbsentError, ParameterError

TENANT_HEADER = "octollm-tenant"
_TENANT = r"\A[a-z0-9][a-z0-9_-]{0,62}\z"
_AFTER = re.compile(r"(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,9})")
_MOST, _MOST_IDS = 2**31 - 1, 2**63 - 1


def _within_reach(moment: datetime) -> datetime:
    """Postgres and Python must both be able to shift it between time zones."""
    if not 1970 <= moment.year <= 9998:
        raise ValueError("must be a time from 1970 on")
    return moment.astimezone(UTC)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


Moment = Annotated[AwareDatetime, AfterValidator(_within_reach)]
Text = Annotated[str, AfterValidator(_storable)]
Cursor = Annotated[str | None, Field(description="`next` of the page before.", max_length=1000)]
Run = Annotated[int | None, Field(ge=1, le=_MOST, description="One run only; all without it.")]


class Asked(BaseModel):
    """Base of all parameters: a name that nobody knows is refused, it would be a filter that does not filter."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Paged(Asked):
    """A page of a list."""

    limit: Annotated[int, Field(ge=1, le=200, description="Items on the page.")] = 50
    cursor: Cursor = None


class Span(Paged):
    """A page of what lies within a time."""

    since: Annotated[Moment | None, Field(description="From this time on: RFC 3339 with its time zone.")] = None
    until: Annotated[Moment | None, Field(description="Before this time.")] = None


class TaskFilter(Span):
    """Which tasks."""

    state: TaskStateName | None = None
    kind: Annotated[Text | None, Field(max_length=63)] = None
    source: Annotated[Text | None, Field(max_length=100, description="The door they came through.")] = None
    priority: Literal["high", "normal", "low"] | None = None
    text: Annotated[
        Text | None,
        Field(min_length=1, max_length=200, description="What the goal contains, in any case. Walks: give `since`."),
    ] = None


class RunFilter(Paged):
    """Which steps or attempts."""

    run: Run = None


class EventFilter(Asked):
    """Which events."""

    after: Annotated[str | None, Field(description="`<run>-<seq>` of the last event seen.", max_length=30)] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 200

    def place(self) -> tuple[int, int]:
        """Run and number in it. Raises ParameterError."""
        if self.after is None:
            return 0, 0
        found = _AFTER.fullmatch(self.after)
        if found is None or max(place := (int(found[1]), int(found[2]))) > _MOST:
            raise ParameterError("after", "must be <run>-<seq>, like 1-12: the id of the last event seen")
        return place


class ProvenanceFilter(Asked):
    """Which run."""

    run: Annotated[int | None, Field(ge=1, le=_MOST, description="The newest without it.")] = None


class CostFilter(Span):
    """Which calls, and how they are added up."""

    group: CostGroup = "day"
    task: Annotated[Text | None, Field(max_length=40)] = None


class LetterFilter(Span):
    """Which dead letters."""

    reason: Annotated[Text | None, Field(max_length=100)] = None
    task: Annotated[Text | None, Field(max_length=40)] = None
    all: Annotated[bool, Field(description="Also those that were redriven or dropped.")] = False


def _tenant(
    request: Request,
    tenant: Annotated[
        str, Header(alias=TENANT_HEADER, pattern=_TENANT, description="Set by the reflex; nobody else may.")
    ] = "default",
) -> str:
    # Of two values one would win, and not everyone before us picks the same.
    if len(request.headers.getlist(TENANT_HEADER)) > 1:
        raise ParameterError(TENANT_HEADER, "is there more than once; send one")
    return tenant


def _task(task: Annotated[str, Path(description="Task id.")]) -> str:
    if not is_task_id(task):
        raise AbsentError
    return task


def _letter(letter: Annotated[str, Path(description="Number of the dead letter.")]) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,18}", letter) or int(letter) > _MOST_IDS:
        raise AbsentError
    return int(letter)


Tenant = Annotated[str, Depends(_tenant)]
Task = Annotated[str, Depends(_task)]
Letter = Annotated[int, Depends(_letter)]
Tasks = Annotated[TaskFilter, Query()]
Pages = Annotated[Paged, Query()]
Runs = Annotated[RunFilter, Query()]
Events = Annotated[EventFilter, Query()]
OneRun = Annotated[ProvenanceFilter, Query()]
Costs = Annotated[CostFilter, Query()]
Letters = Annotated[LetterFilter, Query()]
