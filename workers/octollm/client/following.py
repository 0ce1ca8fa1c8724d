"""Following a task's events over connections that break: what was seen, where to go on, when to give up. No I/O."""

import re
import time
from collections.abc import Iterator
from typing import get_args

from octollm.client.operations import task_path
from octollm.client.replies import Reply, parse, refuse
from octollm.client.sse import Event, Parser
from octollm.client.talk import Ask, jittered
from octollm.contracts import TaskEvent, WaitingStep
from octollm.errors import ApiError, BusyError, ParameterError, UnknownError, UnreachableError

_KNOWN = frozenset(get_args(TaskEvent.model_fields["event"].annotation))
_ID = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_STREAM = "text/event-stream"


class Following:
    """One task's events from one point on. Each connection is `opened`, `fed` and, when it ends, `broken`."""

    def __init__(self, url: str, task: str, after: str | None, patience_s: float) -> None:
        """`after`: id of the last event seen, `<run>-<seq>`; `patience_s`: how long nobody may answer."""
        self._url = url
        self._task = task
        self._last = after
        self._patience_s = patience_s
        self._pause_s = _FIRST_PAUSE_S
        self._alive_at = time.monotonic()
        self._parser = Parser()
        self._nothing_more = self._finished = False
        if after is not None and _ID.fullmatch(after) is None:
            raise ParameterError("after", "after must be <run>-<seq>, like 1-12: the id of the last event seen")

    @property
    def ended(self) -> bool:
        """Asked when a connection has ended: whether there is nothing more to come.

        An earlier run's `finished` may stand in the middle; the server ends the stream after the last one.
        """
        return self._nothing_more or self._finished

    @property
    def ask(self) -> Ask:
        """The request that goes on where we are."""
        resume = {} if self._last is None else {"Last-Event-ID": self._last}
        return Ask("GET", task_path(self._task, "/events"), headers={"Accept": _STREAM, **resume})

    def opened(self, reply: Reply) -> bool:
        """Whether a stream follows. `reply`: with its content unless the status is 200. Raises what `refuse` does."""
        self._parser = Parser()
        if reply.status == 204:
            self._nothing_more = True
            return False
        try:
            refuse(reply)
        except UnknownError as error:
            raise UnknownError(f"there is no task {self._task}; is the id right, and the address?") from error
        if not reply.headers.get("content-type", "").startswith(_STREAM):
            raise ApiError(f"{self._url} answered with no stream of events; is it really an OctoLLM reflex?")
        return True

    def fed(self, chunk: bytes) -> Iterator[TaskEvent | WaitingStep]:
        """What is new in it."""
        self._alive_at = time.monotonic()
        self._pause_s = _FIRST_PAUSE_S
        for event in self._parser.feed(chunk):
            found = self._new(event)
            if found is not None:
                yield found

    def broken(self, error: BusyError | UnreachableError | None) -> float:
        """Seconds until the next connection; `error`: why the last one ended. Raises it when patience has run out."""
        pause = jittered(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        if isinstance(error, BusyError) and error.retry_after_s is not None:
            pause += error.retry_after_s
        if time.monotonic() + pause > self._alive_at + self._patience_s:
            raise error or UnreachableError(f"{self._url} ends the stream of events again and again; try again later")
        return pause

    def _new(self, event: Event) -> TaskEvent | WaitingStep | None:
        """None for what was seen before (after a resumption) and for what a newer server may say."""
        reply = Reply(self._url, 200, {}, event.data.encode())
        if event.name == "waiting":
            return parse(WaitingStep, reply)
        if event.name not in _KNOWN:
            return None
        found = parse(TaskEvent, reply)
        if self._last is not None and (found.run, found.seq) <= _place(self._last):
            return None
        self._last = f"{found.run}-{found.seq}"
        self._finished = found.event == "finished"
        return found


def _place(ident: str) -> tuple[int, int]:
    found = _ID.fullmatch(ident)
    return (0, 0) if found is None else (int(found[1]), int(found[2]))
