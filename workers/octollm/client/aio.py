"""The client for asyncio. `sync.py` is its twin: what they say and when is decided elsewhere in this room."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from octollm.client import operations as ops
from octollm.client.filters import CostFilter, LetterFilter, TaskFilter
from octollm.client.following import Following
from octollm.client.replies import Model
from octollm.client.submission import Priority, body_of, durability_of, key_of
from octollm.client.talk import Ask, Result, Talk
from octollm.client.wire import FAULTS, options, reply_of, request_of, unreachable
from octollm.contracts import TaskEvent, TaskStatus, WaitingStep
from octollm.contracts.answers import (
    Accepted,
    AttemptItem,
    AttemptPage,
    Cancellation,
    CostGroup,
    CostPage,
    DeadLetter,
    DeadLetterItem,
    DeadLetterPage,
    Drop,
    Item,
    Page,
    Provenance,
    Redrive,
    RunItem,
    RunPage,
    StepItem,
    StepPage,
    TaskItem,
    TaskPage,
)
from octollm.errors import BusyError, UnreachableError


class AsyncClient:
    """One OctoLLM; an async context manager. `Client` has the same methods.

    What goes wrong is raised as UnknownError, RefusedError, BusyError or UnreachableError, all of them ApiError; what
    could not even be asked, as ParameterError.
    """

    def __init__(self, url: str = "http://127.0.0.1:8080", *, patience_s: float = 10.0) -> None:
        """`url`: of the reflex; `patience_s`: how long to try again while nobody can answer."""
        self._url = url.rstrip("/")
        self._patience_s = patience_s
        self._http = httpx.AsyncClient(**options(self._url))

    async def __aenter__(self) -> Self:
        """Nothing is sent yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(
        self,
        goal: str,
        *,
        kind: str | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002  the field's own word
        priority: Priority | None = None,
        deadline: timedelta | None = None,
        not_before: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        durability: str | None = None,
    ) -> Accepted:
        """Send a task. Sent twice with the same `idempotency_key` it is one; without one, this call makes its own.

        `not_before`: it begins no earlier, at most 30 days from now; the deadline counts from then. Aware of its zone.
        `durability`: what the 202 has to stand on beyond what the deployment promises, like `stored`.
        """
        body = body_of(goal, kind, input, priority, deadline, metadata, not_before)
        return await self.submit_json(body, idempotency_key=idempotency_key, durability=durability)

    async def submit_json(
        self, body: bytes, *, idempotency_key: str | None = None, durability: str | None = None
    ) -> Accepted:
        """The same with a whole `task.submission.v1`; the reflex judges the bytes as they are."""
        return await self._run(ops.submit(body, key_of(idempotency_key), self._patience_s, durability_of(durability)))

    async def deliver(self, source: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """Send a signed webhook as its sender would; what the reflex made of it."""
        return await self._run(ops.deliver(source, body, headers))

    async def status(self, task: str) -> TaskStatus:
        """How the task is; with its result once it has ended."""
        return await self._run(ops.status(task, self._patience_s))

    async def wait(self, task: str, timeout_s: float) -> TaskStatus:
        """The status at the task's end. Raises UnfinishedError when it has not ended in time."""
        return await self._run(ops.wait(task, timeout_s, self._patience_s))

    async def cancel(self, task: str, detail: str | None = None) -> Cancellation:
        """Ask for the task's end; `detail` says why. One that has ended stays as it is."""
        return await self._run(ops.cancel(task, detail, self._patience_s))

    async def redrive(self, task: str, run: int | None = None) -> Redrive:
        """Ask for one more run of a task that failed or expired; any other stays as it is, and the answer says why.

        `run`: the one that ended, as it was seen. When another has followed it already, nothing is asked for: so this
        may be repeated. Without it the newest run counts.
        """
        return await self._run(ops.redrive(task, run, self._patience_s))

    async def events(self, task: str, after: str | None = None) -> AsyncIterator[TaskEvent]:
        """What happens to the task, as it happens, to its end. `after`: `<run>-<seq>` of the last event seen.

        A connection that breaks is opened again where it broke; each event comes once.
        """
        async for event in self.watch(task, after):
            if isinstance(event, TaskEvent):
                yield event

    async def watch(self, task: str, after: str | None = None) -> AsyncIterator[TaskEvent | WaitingStep]:
        """Like `events`, and also which steps wait for an arm that has no worker, and for how long."""
        following = Following(self._url, task, after, self._patience_s)
        while True:
            broken: BusyError | UnreachableError | None = None
            try:
                response = await self._http.send(request_of(self._url, following.ask, stream=True), stream=True)
                try:
                    content = b"" if response.status_code == httpx.codes.OK else await response.aread()
                    if following.opened(reply_of(self._url, response, content)):
                        async for chunk in response.aiter_bytes():
                            for event in following.fed(chunk):
                                yield event
                finally:
                    await response.aclose()
            except FAULTS as error:
                broken = unreachable(self._url, error)
            except BusyError as error:
                broken = error
            if following.ended:
                return
            await asyncio.sleep(following.broken(broken))

    def tasks(self, **which: Unpack[TaskFilter]) -> AsyncIterator[TaskItem]:
        """All tasks that fit, newest first, asked for a page at a time."""
        return self._items(TaskPage, ops.TASKS, ops.query(**which))

    async def task_page(
        self, *, limit: int | None = None, cursor: str | None = None, **which: Unpack[TaskFilter]
    ) -> TaskPage:
        """One page of them; `cursor` is `next` of the page before."""
        return await self._document(TaskPage, ops.TASKS, ops.query(limit=limit, cursor=cursor, **which))

    def runs(self, task: str) -> AsyncIterator[RunItem]:
        """The task's runs with their plans, oldest first."""
        return self._items(RunPage, ops.task_path(task, "/runs"), {})

    def steps(self, task: str, run: int | None = None) -> AsyncIterator[StepItem]:
        """The task's steps with their outputs; of one run where it is given."""
        return self._items(StepPage, ops.task_path(task, "/steps"), ops.query(run=run))

    def attempts(self, task: str, run: int | None = None) -> AsyncIterator[AttemptItem]:
        """How every attempt at the task's steps ended, oldest first."""
        return self._items(AttemptPage, ops.task_path(task, "/attempts"), ops.query(run=run))

    async def provenance(self, task: str, run: int | None = None) -> Provenance:
        """One run as one document; the newest where none is given."""
        return await self._document(Provenance, ops.task_path(task, "/provenance"), ops.query(run=run))

    async def costs(
        self,
        group: CostGroup = "day",
        *,
        limit: int | None = None,
        cursor: str | None = None,
        **which: Unpack[CostFilter],
    ) -> CostPage:
        """What calls to models took: the total, and a page of groups."""
        return await self._document(CostPage, ops.COSTS, ops.query(group=group, limit=limit, cursor=cursor, **which))

    def dead_letters(self, **which: Unpack[LetterFilter]) -> AsyncIterator[DeadLetterItem]:
        """All messages that were given up on and fit, newest first, asked for a page at a time."""
        return self._items(DeadLetterPage, ops.LETTERS, ops.query(**which))

    async def dead_letter_page(
        self, *, limit: int | None = None, cursor: str | None = None, **which: Unpack[LetterFilter]
    ) -> DeadLetterPage:
        """One page of them; `cursor` is `next` of the page before."""
        return await self._document(DeadLetterPage, ops.LETTERS, ops.query(limit=limit, cursor=cursor, **which))

    async def dead_letter(self, number: int) -> DeadLetter:
        """One of them with what is kept of it."""
        return await self._run(ops.letter(number, self._patience_s))

    async def drop(self, number: int) -> Drop:
        """Say that nothing is to be done about a dead letter; it is kept, and no longer listed."""
        return await self._run(ops.drop(number, self._patience_s))

    async def _document(self, model: type[Model], path: str, params: Mapping[str, str]) -> Model:
        return await self._run(ops.document(model, path, params, self._patience_s))

    async def _items(self, model: type[Page[Item]], path: str, filters: Mapping[str, str]) -> AsyncIterator[Item]:
        params = dict(filters)
        while True:
            page = await self._document(model, path, params)
            for item in page.items:
                yield item
            if page.next is None:
                return
            params["cursor"] = page.next

    async def _run(self, talk: Talk[Result]) -> Result:
        """Carry a conversation out to its end."""
        try:
            asked = next(talk)
            while True:
                if isinstance(asked, Ask):
                    try:
                        response = await self._http.send(request_of(self._url, asked))
                    except FAULTS as error:
                        asked = talk.throw(unreachable(self._url, error))
                    else:
                        asked = talk.send(reply_of(self._url, response, response.content))
                else:
                    await asyncio.sleep(asked.seconds)
                    asked = talk.send(None)
        except StopIteration as end:
            result: Result = end.value
            return result
