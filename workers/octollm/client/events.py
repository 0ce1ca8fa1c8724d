"""The position in a task's event stream.

It says which events are new, where to resume, and whether more will come. Pure.
"""

import re
from typing import get_args

from httpx2 import ServerSentEvent

from octollm.client.responses import EVENT_STREAM, parse, parse_object
from octollm.contracts import TaskEvent, WaitingStep
from octollm.errors import BusyError, ParameterError

_KNOWN_EVENTS = frozenset(get_args(TaskEvent.model_fields["event"].annotation))
_EVENT_ID = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")


class EventPosition:
    """How far a task's events have been read, across connections."""

    def __init__(self, url: str, after: str | None) -> None:
        """Start after the event `after`, `<run>-<seq>`, or at the beginning.

        Raises ParameterError for another form.

        `url`: of the reflex, for messages.
        """
        if after is not None and _EVENT_ID.fullmatch(after) is None:
            raise ParameterError("after", "after must be <run>-<seq>, like 1-12: the id of the last event received")
        self._url = url
        self._last = after
        self._finished = False

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the request that continues from here."""
        resume = {} if self._last is None else {"Last-Event-ID": self._last}
        return {"Accept": EVENT_STREAM, **resume}

    @property
    def finished(self) -> bool:
        """Whether the last event read was `finished`.

        Ask when the server has ended the stream: the `finished` of an earlier run may be followed by a next run.
        """
        return self._finished

    def accept(self, event: ServerSentEvent) -> TaskEvent | WaitingStep | None:
        """Return the event when it is new; None for one received before a reconnect, and for an unknown type.

        Raises ApiError when its data is invalid, and BusyError when the stream cannot be followed now.
        """
        if event.event == "unavailable":
            problem = parse_object(self._url, event.data.encode())
            raise BusyError(str(problem.get("detail", "the event stream is unavailable")), retry_after_s=None)
        if event.event == "waiting":
            return parse(WaitingStep, self._url, event.data.encode())
        if event.event not in _KNOWN_EVENTS:
            return None
        found = parse(TaskEvent, self._url, event.data.encode())
        if self._last is not None and (found.run, found.seq) <= _run_and_seq(self._last):
            return None
        self._last = f"{found.run}-{found.seq}"
        self._finished = found.event == "finished"
        return found


def _run_and_seq(event_id: str) -> tuple[int, int]:
    run, _, seq = event_id.partition("-")
    return int(run), int(seq)
