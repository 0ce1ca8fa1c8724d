"""Server-sent events out of bytes, however they are cut (html.spec.whatwg.org, 9.2.6). Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from octollm.errors import ApiError

_LONGEST = 8 * 1024 * 1024
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Event:
    """One event. Comments are none."""

    name: str
    data: str
    id: str
    """The newest id so far, which may be an earlier event's."""


class Parser:
    """Feed it chunks, in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._begun = False
        self._name = self._id = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are complete now. Raises ApiError where a line never ends."""
        self._buffer += chunk
        for line in self._lines():
            if line:
                self._field(line)
            elif (event := self._end()) is not None:
                yield event
        if len(self._buffer) > _LONGEST:
            raise ApiError("the stream of events sends a line without end; is it really an OctoLLM reflex?")

    def _lines(self) -> Iterator[str]:
        """Lines end with CR LF, LF or CR; a CR at the end of what we have may be half of a CR LF."""
        buffer = self._buffer
        if not self._begun:
            if len(buffer) < len(_MARK) and _MARK.startswith(bytes(buffer)):
                return
            self._begun = True
            if buffer.startswith(_MARK):
                del buffer[: len(_MARK)]
        while buffer:
            ends = [place for sign in b"\r\n" if (place := buffer.find(sign)) >= 0]
            if not ends:
                return
            end = min(ends)
            after = end + 1
            if buffer[end] == ord("\r"):
                if after == len(buffer):
                    return
                after += buffer[after] == ord("\n")
            line = buffer[:end].decode(errors="replace")
            del buffer[:after]
            yield line

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value

    def _end(self) -> Event | None:
        """An empty line: without data it is no event."""
        event = Event(self._name or "message", "\n".join(self._data), self._id) if self._data else None
        self._name, self._data = "", []
        return event
