"""What lists can be narrowed to; absent keys narrow nothing."""

from datetime import datetime
from typing import TypedDict

from octollm.client.submission import Priority
from octollm.contracts.answers import TaskStateName


class TaskFilter(TypedDict, total=False):
    """Of tasks."""

    state: TaskStateName
    kind: str
    source: str
    priority: Priority
    since: datetime
    """Admitted at this time or later; aware of its time zone."""
    until: datetime
    """Admitted before this time."""
    text: str
    """What the goal contains, in any case."""


class CostFilter(TypedDict, total=False):
    """Of calls to models."""

    task: str
    since: datetime
    until: datetime


class LetterFilter(TypedDict, total=False):
    """Of dead letters."""

    reason: str
    task: str
    since: datetime
    until: datetime
    all: bool
    """Also those that were redriven or dropped."""
