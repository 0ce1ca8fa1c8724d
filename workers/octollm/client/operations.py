"""Every operation as a conversation: what is asked, what it means, what is asked next. Opens no connection."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from octollm.client.replies import Model, parse, parse_object
from octollm.client.talk import Ask, Pause, Talk, jittered, patiently
from octollm.contracts import TaskStatus
from octollm.contracts.answers import TERMINAL, Accepted, Cancellation, DeadLetter, Drop, Redrive
from octollm.errors import BusyError, ParameterError, UnfinishedError, UnknownError, UnreachableError

TASKS = "/v1/tasks"
COSTS = "/v1/costs"
LETTERS = "/v1/dead-letters"
WEBHOOKS = "/v1/webhooks"
_NO_LETTER = "there is no dead letter {}; `octollm dead ls --all` lists them"
_FIRST_LOOK_S = 0.05
_LONGEST_LOOK_S = 1.0


def task_path(task: str, part: str = "") -> str:
    """Whatever `task` is, it stays one segment of the path."""
    return f"{TASKS}/{quote(task, safe='', errors='replace').replace('.', '%2E')}{part}"


def submit(body: bytes, key: str, patience_s: float, more: Mapping[str, str]) -> Talk[Accepted]:
    """Sent again with the same key and bytes, a task is one task: so it may be sent again. `more`: headers."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, **more}
    reply = yield from patiently(Ask("POST", TASKS, headers=headers, content=body), patience_s)
    return parse(Accepted, reply)


def status(task: str, patience_s: float) -> Talk[TaskStatus]:
    """Raises UnknownError for a task that nobody knows."""
    try:
        reply = yield from patiently(Ask("GET", task_path(task)), patience_s)
    except UnknownError as error:
        raise UnknownError(f"there is no task {task}; is the id right, and the address?") from error
    return parse(TaskStatus, reply)


def wait(task: str, timeout_s: float, patience_s: float) -> Talk[TaskStatus]:
    """The status at the end. Once the task was seen, outages are waited out. Raises UnfinishedError in time."""
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_LOOK_S
    seen = yield from status(task, patience_s)
    while seen.state not in TERMINAL:
        left = deadline - time.monotonic()
        if left <= 0:
            raise UnfinishedError(
                f"task {task} is still {seen.state} after {timeout_s:g} s; "
                f"it goes on, look again with `octollm show {task} --wait`"
            )
        yield Pause(min(jittered(pause), left))
        pause = min(pause * 1.5, _LONGEST_LOOK_S)
        try:
            seen = yield from status(task, 0)
        except (BusyError, UnreachableError):
            if time.monotonic() >= deadline:
                raise
    return seen


def cancel(task: str, detail: str | None, patience_s: float) -> Talk[Cancellation]:
    """Asked twice it is one wish."""
    ask = Ask("DELETE", task_path(task), params=query(detail=detail))
    try:
        reply = yield from patiently(ask, patience_s)
    except UnknownError as error:
        raise UnknownError(f"there is no task {task}; is the id right, and the address?") from error
    return parse(Cancellation, reply)


def redrive(task: str, run: int | None, patience_s: float) -> Talk[Redrive]:
    """With the run that was seen, asked twice it is one wish."""
    ask = Ask("POST", task_path(task, "/runs"))
    if run is not None:
        ask = replace(ask, headers={"Content-Type": "application/json"}, content=b'{"run": %d}' % run)
    try:
        reply = yield from patiently(ask, patience_s)
    except UnknownError as error:
        raise UnknownError(f"there is no task {task}; is the id right, and the address?") from error
    return parse(Redrive, reply)


def drop(number: int, patience_s: float) -> Talk[Drop]:
    """Dropped twice it is dropped once."""
    try:
        reply = yield from patiently(Ask("DELETE", f"{LETTERS}/{number:d}"), patience_s)
    except UnknownError as error:
        raise UnknownError(_NO_LETTER.format(number)) from error
    return parse(Drop, reply)


def deliver(source: str, body: bytes, headers: Mapping[str, str]) -> Talk[dict[str, Any]]:
    """A webhook, signed already, as its sender would: asked once."""
    path = f"{WEBHOOKS}/{quote(source, safe='', errors='replace')}"
    headers = {"Content-Type": "application/json", **headers}
    return parse_object((yield from patiently(Ask("POST", path, headers=headers, content=body), 0)))


def letter(number: int, patience_s: float) -> Talk[DeadLetter]:
    """One dead letter."""
    try:
        reply = yield from patiently(Ask("GET", f"{LETTERS}/{number:d}"), patience_s)
    except UnknownError as error:
        raise UnknownError(_NO_LETTER.format(number)) from error
    return parse(DeadLetter, reply)


def document(model: type[Model], path: str, params: Mapping[str, str], patience_s: float) -> Talk[Model]:
    """What lies at `path`."""
    reply = yield from patiently(Ask("GET", path, params=params), patience_s)
    return parse(model, reply)


def query(**values: object) -> dict[str, str]:
    """Parameters of an address; those that are None are left out. Raises ParameterError for what is no text."""
    found = {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in values.items()
        if value is not None
    }
    for name, text in found.items():
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise ParameterError(name, f"{name} is not UTF-8 text")
    return found
