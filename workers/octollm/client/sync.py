"""The blocking client. Do not edit: `make generate` writes it from `aio.py`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Unpack

import httpx2

from octollm.client import requests
from octollm.client.connection import STREAM_TIMEOUT
from octollm.client.events import EventPosition
from octollm.client.filters import CallbackFilter, CostFilter, DeadLetterFilter, TaskFilter
from octollm.client.requests import MAX_WAIT_S, Priority, query, task_path
from octollm.client.responses import (
    TRANSPORT_ERRORS,
    delivery_answer,
    parse,
    parse_batch,
    raise_for_status,
    require_event_stream,
    unreachable,
)
from octollm.client.retry import Deadline, Retry, poll_intervals
from octollm.client.sync_connection import Connection
from octollm.contracts import TaskEvent, TaskStatus, WaitingStep
from octollm.contracts.answers import (
    TERMINAL,
    Accepted,
    AttemptItem,
    AttemptPage,
    Callback,
    CallbackEndpointPage,
    CallbackItem,
    CallbackPage,
    Cancellation,
    CostGroup,
    CostPage,
    DeadLetter,
    DeadLetterItem,
    DeadLetterPage,
    Drop,
    Enabling,
    Provenance,
    Redelivery,
    Redrive,
    RunItem,
    RunPage,
    StepItem,
    StepPage,
    TaskItem,
    TaskPage,
)
from octollm.errors import ApiError, BusyError, UnfinishedError, UnknownError, UnreachableError


class Client(Connection):
    """A client of one OctoLLM deployment. Use it as a context manager, or call `close`.

    Every method that sends a request raises UnknownError (no such task or dead letter), RefusedError (the request is
    invalid) or its subclasses UnauthenticatedError and ForbiddenError (the credential is refused), BusyError
    (temporarily unavailable) or UnreachableError, all subclasses of ApiError; and ParameterError for arguments that
    cannot be sent.
    """

    def submit(
        self,
        goal: str,
        *,
        kind: str | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002  the field's name on the wire
        priority: Priority | None = None,
        deadline: timedelta | None = None,
        not_before: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        callback: str | None = None,
        idempotency_key: str | None = None,
        durability: str | None = None,
    ) -> Accepted:
        """Submit a task and return its id and state.

        `kind`: the recipe; `input`: the recipe's input.
        `deadline`: after this time the task expires; it counts from `not_before` where that is given.
        `not_before`: start at this time at the earliest, at most 30 days from now; with a time zone.
        `callback`: URL that gets a signed message once the task has ended; `octollm.client.callbacks` verifies it.
        `idempotency_key`: two submissions with one key are one task. Without it this call makes its own, so that its
        retries do not create a second task.
        `durability`: what the answer has to guarantee beyond the deployment's default, like `stored`.
        """
        body = requests.submission_body(goal, kind, input, priority, deadline, metadata, not_before, callback)
        return self.submit_json(body, idempotency_key=idempotency_key, durability=durability)

    def submit_json(
        self, body: bytes, *, idempotency_key: str | None = None, durability: str | None = None
    ) -> Accepted:
        """Submit `body`, a `task.submission.v1` as JSON, as it is; otherwise like `submit`."""
        headers = requests.submission_headers(idempotency_key, durability)
        response = self._request("POST", requests.TASKS, headers=headers, content=body)
        return parse(Accepted, self._url, response.content)

    def submit_many(
        self, tasks: Sequence[Mapping[str, Any]], *, durability: str | None = None
    ) -> list[Accepted | ApiError]:
        """Submit tasks with as few requests as possible and return what became of each, in their order.

        `tasks`: the fields of a `task.submission.v1` each, and `idempotency_key` where a task has one of its own.
        `durability`: like that of `submit`, for all of them.

        A task that is not accepted is an error in the list, mostly a RefusedError, and does not affect the others. A
        task for which the reflex is busy is sent again for as long as the client retries, and then is a BusyError.
        """
        headers = requests.batch_headers(durability)
        results = list[Accepted | ApiError]()
        for lines in requests.batches(tasks):
            results += self._submit_lines(lines, headers)
        return results

    def _submit_lines(self, lines: Sequence[bytes], headers: Mapping[str, str]) -> list[Accepted | ApiError]:
        retry = Retry(self._retry_for_s)
        results = dict[int, Accepted | ApiError]()
        waiting = list(range(len(lines)))
        while True:
            content = b"\n".join(lines[number] for number in waiting)
            response = self._request("POST", requests.BATCH, headers=headers, content=content)
            results.update(zip(waiting, parse_batch(self._url, response.content, len(waiting)), strict=True))
            busy = [(number, one) for number, one in results.items() if isinstance(one, BusyError)]
            if not busy:
                break
            try:
                delay = retry.next_delay(busy[0][1])
            except BusyError:
                break
            waiting = [number for number, _ in busy]
            time.sleep(delay)
        return [results[number] for number in range(len(lines))]

    def deliver(self, source: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Send a signed webhook once, as the sender of `source` would, and return the JSON answer.

        An accepted form of Slack is answered without a body; then the result has only `status_url`, the path of the
        task, or nothing if the event was ignored.
        """
        headers = {"Content-Type": requests.JSON, **headers}
        path = requests.webhook_path(source)
        response = self._request("POST", path, headers=headers, content=body, retry_for_s=0)
        return delivery_answer(self._url, response)

    def status(self, task: str) -> TaskStatus:
        """Return the status of a task, with its result once it has ended."""
        return self._status(task, self._retry_for_s)

    def wait(self, task: str, timeout_s: float) -> TaskStatus:
        """Wait until a task has ended and return its status.

        Raises UnfinishedError after `timeout_s` seconds.

        The reflex answers when the task ends. While it cannot hold another waiting request, the task is polled.

        Once the task has been seen, outages do not end the waiting before `timeout_s`.
        """
        deadline = Deadline(timeout_s)
        intervals = poll_intervals()
        can_wait = True
        status = self.status(task)
        while status.state not in TERMINAL:
            remaining = deadline.remaining_s()
            if remaining <= 0:
                raise UnfinishedError(
                    f"task {task} is still {status.state} after {timeout_s:g} s; "
                    f"it continues, wait for it with `octollm show {task} --wait`"
                )
            wait_s = min(int(remaining), MAX_WAIT_S) if can_wait else 0
            asked = Deadline(wait_s)
            if wait_s == 0:
                time.sleep(min(next(intervals), remaining))
            try:
                status = self._status(task, 0, wait_s)
                can_wait = asked.remaining_s() <= 0
            except (BusyError, UnreachableError):
                can_wait = False
                if deadline.remaining_s() <= 0:
                    raise
        return status

    def cancel(self, task: str, detail: str | None = None) -> Cancellation:
        """Request the cancellation of a task and return its state. A task that has ended is not changed.

        `detail`: the reason, stored with the task.
        """
        parameters = query(detail=detail)
        response = self._request("DELETE", task_path(task), params=parameters, missing=_no_task(task))
        return parse(Cancellation, self._url, response.content)

    def redrive(self, task: str, run: int | None = None) -> Redrive:
        """Request another run of a task that failed or expired; any other task is not changed.

        `run`: the run that ended; without it, the newest. If a later run exists, nothing is requested, so a call with
        `run` can be repeated. The answer's `accepted` and `detail` say what happened.
        """
        response = self._request(
            "POST",
            task_path(task, "/runs"),
            headers={} if run is None else {"Content-Type": requests.JSON},
            content=None if run is None else b'{"run": %d}' % run,
            missing=_no_task(task),
        )
        return parse(Redrive, self._url, response.content)

    def events(self, task: str, after: str | None = None) -> Iterator[TaskEvent]:
        """Yield the events of a task as they happen, until it has ended, each event once.

        `after`: `<run>-<seq>` of the last event already received. A broken connection is resumed.
        """
        for event in self.watch(task, after):
            if isinstance(event, TaskEvent):
                yield event

    def watch(self, task: str, after: str | None = None) -> Iterator[TaskEvent | WaitingStep]:
        """Yield what `events` yields, and a WaitingStep when a step waits for an arm without workers."""
        position = EventPosition(self._url, after)
        retry = Retry(self._retry_for_s)
        url = f"{self._url}{task_path(task, '/events')}"
        while True:
            error: BusyError | UnreachableError = UnreachableError(
                f"{self._url} keeps closing the stream of events; try again later"
            )
            try:
                headers = position.headers
                with self._http.stream("GET", url, headers=headers, timeout=STREAM_TIMEOUT) as response:
                    if response.status_code == HTTPStatus.NO_CONTENT:
                        return
                    self._check_stream(task, response)
                    retry.connected()
                    for event in httpx2.EventSource(response):
                        found = position.accept(event)
                        retry.succeeded()
                        if found is not None:
                            yield found
            except httpx2.SSEError as fault:
                raise ApiError(f"{self._url} sent an invalid stream of events: {fault}") from fault
            except TRANSPORT_ERRORS as fault:
                error = unreachable(self._url, fault)
            except BusyError as fault:
                error = fault
            if position.finished:
                return
            time.sleep(retry.next_delay(error))

    def tasks(self, **filters: Unpack[TaskFilter]) -> Iterator[TaskItem]:
        """Yield the tasks that match, newest first, requesting page after page."""
        return self._items(TaskPage, requests.TASKS, query(**filters))

    def task_page(
        self, *, limit: int | None = None, cursor: str | None = None, **filters: Unpack[TaskFilter]
    ) -> TaskPage:
        """Return one page of the tasks that match; `cursor`: `next` of the previous page."""
        return self._get(TaskPage, requests.TASKS, query(limit=limit, cursor=cursor, **filters))

    def runs(self, task: str) -> Iterator[RunItem]:
        """Yield the runs of a task with their plans, oldest first."""
        return self._items(RunPage, task_path(task, "/runs"), {})

    def steps(self, task: str, run: int | None = None) -> Iterator[StepItem]:
        """Yield the steps of a task with their outputs; only those of `run` if it is given."""
        return self._items(StepPage, task_path(task, "/steps"), query(run=run))

    def attempts(self, task: str, run: int | None = None) -> Iterator[AttemptItem]:
        """Yield every attempt at a task's steps and its outcome, oldest first.

        With `run` only those of that run.
        """
        return self._items(AttemptPage, task_path(task, "/attempts"), query(run=run))

    def provenance(self, task: str, run: int | None = None) -> Provenance:
        """Return the provenance of `run`, or of the newest run.

        It has the request, the steps, their attempts and the result.
        """
        return self._get(Provenance, task_path(task, "/provenance"), query(run=run))

    def costs(
        self,
        group: CostGroup = "day",
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **filters: Unpack[CostFilter],
    ) -> CostPage:
        """Return the cost of calls to models: the total, and one page of groups.

        `cursor`: `next` of the previous page.
        """
        return self._get(CostPage, requests.COSTS, query(group=group, limit=limit, cursor=cursor, **filters))

    def dead_letters(self, **filters: Unpack[DeadLetterFilter]) -> Iterator[DeadLetterItem]:
        """Yield the dead letters that match, newest first, requesting page after page."""
        return self._items(DeadLetterPage, requests.DEAD_LETTERS, query(**filters))

    def dead_letter_page(
        self, *, limit: int | None = None, cursor: str | None = None, **filters: Unpack[DeadLetterFilter]
    ) -> DeadLetterPage:
        """Return one page of the dead letters that match; `cursor`: `next` of the previous page."""
        return self._get(DeadLetterPage, requests.DEAD_LETTERS, query(limit=limit, cursor=cursor, **filters))

    def dead_letter(self, number: int) -> DeadLetter:
        """Return one dead letter with the stored part of its message."""
        return self._get(DeadLetter, f"{requests.DEAD_LETTERS}/{number:d}", {}, _no_dead_letter(number))

    def drop(self, number: int) -> Drop:
        """Mark a dead letter as needing no action. It stays stored and is no longer listed by default."""
        path = f"{requests.DEAD_LETTERS}/{number:d}"
        response = self._request("DELETE", path, missing=_no_dead_letter(number))
        return parse(Drop, self._url, response.content)

    def callbacks(self, **filters: Unpack[CallbackFilter]) -> Iterator[CallbackItem]:
        """Yield the callbacks that match, newest first, requesting page after page."""
        return self._items(CallbackPage, requests.CALLBACKS, query(**filters))

    def callback_page(
        self, *, limit: int | None = None, cursor: str | None = None, **filters: Unpack[CallbackFilter]
    ) -> CallbackPage:
        """Return one page of the callbacks that match; `cursor`: `next` of the previous page."""
        return self._get(CallbackPage, requests.CALLBACKS, query(limit=limit, cursor=cursor, **filters))

    def callback(self, number: int) -> Callback:
        """Return one callback with what is sent and the beginning of the last answer."""
        return self._get(Callback, f"{requests.CALLBACKS}/{number:d}", {}, _no_callback(number))

    def redeliver(self, number: int) -> Redelivery:
        """Send a callback again, however it ended. While its endpoint is disabled it waits."""
        path = f"{requests.CALLBACKS}/{number:d}/redeliver"
        response = self._request("POST", path, missing=_no_callback(number))
        return parse(Redelivery, self._url, response.content)

    def callback_endpoint_page(self, *, limit: int | None = None, cursor: str | None = None) -> CallbackEndpointPage:
        """Return one page of the endpoints of callbacks that fail or are disabled."""
        return self._get(CallbackEndpointPage, requests.CALLBACK_ENDPOINTS, query(limit=limit, cursor=cursor))

    def enable_callback_endpoint(self, number: int) -> Enabling:
        """Send to a disabled endpoint again, and count its failures from now on."""
        path = f"{requests.CALLBACK_ENDPOINTS}/{number:d}/enable"
        response = self._request("POST", path, missing=f"there is no failing endpoint {number}")
        return parse(Enabling, self._url, response.content)

    def _status(self, task: str, retry_for_s: float, wait_s: int = 0) -> TaskStatus:
        params = query(wait=f"{wait_s}s") if wait_s else None
        response = self._request("GET", task_path(task), params=params, missing=_no_task(task), retry_for_s=retry_for_s)
        return parse(TaskStatus, self._url, response.content)

    def _check_stream(self, task: str, response: httpx2.Response) -> None:
        if response.status_code != HTTPStatus.OK:
            response.read()
        try:
            raise_for_status(self._url, response)
        except UnknownError as error:
            raise UnknownError(_no_task(task)) from error
        require_event_stream(self._url, response)


def _no_task(task: str) -> str:
    return f"there is no task {task}; check the id and the address of the reflex"


def _no_dead_letter(number: int) -> str:
    return f"there is no dead letter {number}; `octollm dead ls --all` lists them"


def _no_callback(number: int) -> str:
    return f"there is no callback {number}; `octollm callbacks ls` lists them"
