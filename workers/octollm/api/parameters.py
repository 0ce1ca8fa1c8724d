"""Parameters of requests and their checks: filters, pages, ids and the tenant."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from octollm.contracts.answers import CallbackState, CostGroup, TaskStateName
from octollm.contracts.ids import is_task_id
from octollm.credentials.caller import Caller
from octollm.errors import AbsentError, ParameterError

_AFTER = re.compile(r"(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,9})")
_MAX_INTEGER, _MAX_ID = 2**31 - 1, 2**63 - 1


def _convertible(moment: datetime) -> datetime:
    """Refuse times that Postgres or Python cannot convert to every time zone."""
    if not 1970 <= moment.year <= 9998:
        raise ValueError("must be a time between 1970 and 9998")
    return moment.astimezone(UTC)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


Moment = Annotated[AwareDatetime, AfterValidator(_convertible)]
Text = Annotated[str, AfterValidator(_storable)]
Cursor = Annotated[str | None, Field(description="`next` of the previous page.", max_length=1000)]
Run = Annotated[int | None, Field(ge=1, le=_MAX_INTEGER, description="Only this run; by default all runs.")]


class Parameters(BaseModel):
    """Base of all query parameters. Unknown names are refused: a misspelt filter would return everything."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class PageParameters(Parameters):
    """Which page of a list."""

    limit: Annotated[int, Field(ge=1, le=200, description="Maximum number of items.")] = 50
    cursor: Cursor = None


class TimeSpan(PageParameters):
    """Which page of the items within a time span."""

    since: Annotated[Moment | None, Field(description="From this time on; RFC 3339 with a time zone.")] = None
    until: Annotated[Moment | None, Field(description="Before this time.")] = None


class TaskFilter(TimeSpan):
    """Which tasks to list."""

    state: TaskStateName | None = None
    kind: Annotated[Text | None, Field(max_length=63)] = None
    source: Annotated[
        Text | None, Field(max_length=100, description="How they were submitted: http, webhook or stream.")
    ] = None
    priority: Literal["high", "normal", "low"] | None = None
    text: Annotated[
        Text | None,
        Field(
            min_length=1,
            max_length=200,
            description="Text in the goal, in upper or lower case. Not indexed: narrow it with `since`.",
        ),
    ] = None


class StatusFilter(Parameters):
    """What a status has besides its usual fields."""

    include: Annotated[
        Literal["submission"] | None, Field(description="`submission`: the task's submission as it was stored.")
    ] = None


class RunFilter(PageParameters):
    """Which steps or attempts to list."""

    run: Run = None


class EventFilter(Parameters):
    """Which events to list."""

    after: Annotated[str | None, Field(description="`<run>-<seq>` of the last event received.", max_length=30)] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 200

    def position(self) -> tuple[int, int]:
        """Return the run and sequence number in `after`; (0, 0) without it. Raises ParameterError."""
        if self.after is None:
            return 0, 0
        found = _AFTER.fullmatch(self.after)
        if found is None or max(position := (int(found[1]), int(found[2]))) > _MAX_INTEGER:
            raise ParameterError("after", "must be <run>-<seq>, like 1-12: the id of the last event received")
        return position


class ProvenanceFilter(Parameters):
    """Which run to describe."""

    run: Annotated[int | None, Field(ge=1, le=_MAX_INTEGER, description="By default the newest run.")] = None


class CostFilter(TimeSpan):
    """Which calls to add up, and how to group them."""

    group: CostGroup = "day"
    task: Annotated[Text | None, Field(max_length=40)] = None


class DeadLetterFilter(TimeSpan):
    """Which dead letters to list."""

    reason: Annotated[Text | None, Field(max_length=100)] = None
    task: Annotated[Text | None, Field(max_length=40)] = None
    all: Annotated[bool, Field(description="Include those that were redriven or dropped.")] = False


class CallbackFilter(PageParameters):
    """Which callbacks to list."""

    task: Annotated[Text | None, Field(max_length=40)] = None
    state: CallbackState | None = None
    endpoint: Annotated[Text | None, Field(max_length=2000)] = None


def _tenant(request: Request) -> str:
    caller: Caller = request.state.caller
    return caller.tenant


def _task(task: Annotated[str, Path(description="Task id.")]) -> str:
    if not is_task_id(task):
        raise AbsentError
    return task


def _dead_letter(dead_letter: Annotated[str, Path(description="Id of the dead letter.")]) -> int:
    return _id(dead_letter)


def _callback(callback: Annotated[str, Path(description="Id of the callback.")]) -> int:
    return _id(callback)


def _endpoint(endpoint: Annotated[str, Path(description="Id of the endpoint.")]) -> int:
    return _id(endpoint)


def _id(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,18}", text) or int(text) > _MAX_ID:
        raise AbsentError
    return int(text)


Tenant = Annotated[str, Depends(_tenant)]
"""The caller's, see `authentication.py`."""
Task = Annotated[str, Depends(_task)]
DeadLetterId = Annotated[int, Depends(_dead_letter)]
CallbackId = Annotated[int, Depends(_callback)]
EndpointId = Annotated[int, Depends(_endpoint)]
TaskQuery = Annotated[TaskFilter, Query()]
PageQuery = Annotated[PageParameters, Query()]
RunQuery = Annotated[RunFilter, Query()]
StatusQuery = Annotated[StatusFilter, Query()]
EventQuery = Annotated[EventFilter, Query()]
ProvenanceQuery = Annotated[ProvenanceFilter, Query()]
CostQuery = Annotated[CostFilter, Query()]
DeadLetterQuery = Annotated[DeadLetterFilter, Query()]
CallbackQuery = Annotated[CallbackFilter, Query()]
