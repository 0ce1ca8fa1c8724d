"""Filters of the list methods. A key that is absent does not filter."""

from datetime import datetime
from typing import TypedDict

from octollm.client.requests import Priority
from octollm.contracts.answers import CallbackState, TaskStateName


class TaskFilter(TypedDict, total=False):
    """Which tasks to list."""

    state: TaskStateName
    kind: str
    source: str
    """How the task was submitted: `http`, `webhook` or `stream`."""
    priority: Priority
    since: datetime
    """Admitted at this time or later; with a time zone."""
    until: datetime
    """Admitted before this time; with a time zone."""
    text: str
    """Text that the goal contains; upper and lower case are the same."""


class CostFilter(TypedDict, total=False):
    """Which calls to models to add up."""

    task: str
    since: datetime
    """Answered at this time or later; with a time zone."""
    until: datetime
    """Answered before this time; with a time zone."""


class DeadLetterFilter(TypedDict, total=False):
    """Which dead letters to list."""

    reason: str
    task: str
    since: datetime
    """Received at this time or later; with a time zone."""
    until: datetime
    """Received before this time; with a time zone."""
    all: bool
    """Include dead letters that were redriven or dropped."""


class CallbackFilter(TypedDict, total=False):
    """Which callbacks to list."""

    task: str
    state: CallbackState
    endpoint: str
    """A name in callbacks.yaml, or a URL without its query."""
