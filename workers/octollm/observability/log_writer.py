"""Writes log lines from a thread, so that a log that cannot be written never holds up work.

A pipe whose reader stands still, a full disk and a closed file descriptor cost lines, which are counted.
"""

import io
import os
import select
import threading
import time
from collections import deque

from prometheus_client import Counter

DROPPED = Counter("octollm_log_lines_dropped_total", "Log lines that could not be written.")
_MAX_QUEUED_BYTES = 4 * 1024 * 1024
_MAX_LINE_BYTES = 256 * 1024
_CUT = b" (cut)\n"
_POLL_S = 1.0
_FLUSH_S = 1.0
"""How long the end of the process waits for lines that are still queued."""


class LogWriter:
    """A bounded queue of lines in front of a file descriptor. All methods may be called by any thread."""

    def __init__(self, fd: int | None) -> None:
        """`fd` is duplicated, so that a file opened later under its number gets no log lines.

        None, or a descriptor that is not open, drops every line.
        """
        self._fd = _duplicate(fd)
        self._unreported = 0
        self._started = False
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def write(self, text: str) -> None:
        """Queue one line or several, with their line ends. Never blocks; drops the text if the queue is full."""
        line = text.encode(errors="backslashreplace")
        if len(line) > _MAX_LINE_BYTES:
            line = line[: _MAX_LINE_BYTES - len(_CUT)] + _CUT
        with self._changed:
            if self._fd is None or self._closed or self._queued_bytes + len(line) > _MAX_QUEUED_BYTES:
                self._drop()
                return
            self._lines.append(line)
            self._queued_bytes += len(line)
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="log writer", daemon=True).start()  # noqa: TID251  `_run` cannot raise
            self._changed.notify_all()

    def take_unreported(self) -> int:
        """Return how many lines were dropped since the last call, once a line could be written again; else 0."""
        with self._changed:
            if self._failing or self._closed or self._queued_bytes > _MAX_QUEUED_BYTES // 2:
                return 0
            found, self._unreported = self._unreported, 0
            return found

    def flush(self, timeout_s: float = _FLUSH_S) -> bool:
        """Wait until all queued lines are written; return whether they were within `timeout_s`. Blocks."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._queued_bytes > 0:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self) -> None:
        """Write what is queued, for at most a second, and drop every later line."""
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _reset(self) -> None:
        """Begin with an empty queue and no thread; a forked child must not write its parent's lines again."""
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._queued_bytes = 0
        self._started = False
        self._closed = False
        self._failing = self._fd is None
        self._mid_line = False

    def _drop(self) -> None:
        DROPPED.inc()
        self._unreported += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    if self._closed:
                        return
                    self._changed.wait()
                line = self._lines.popleft()
            written = self._put(line)
            with self._changed:
                self._queued_bytes -= len(line)
                self._failing = not written
                if not written:
                    self._drop()
                self._changed.notify_all()

    def _put(self, line: bytes) -> bool:
        """Write a line; return whether all of it was written. Blocks as long as the reader takes nothing."""
        if self._fd is None:
            return False
        # A line that failed halfway must not run into the next one.
        rest = memoryview(b"\n" + line if self._mid_line else line)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                select.select([], [self._fd], [], _POLL_S)
            except (OSError, ValueError):
                self._mid_line = self._mid_line or len(rest) < len(line)
                return False
        self._mid_line = False
        return True


class LossyStream(io.TextIOBase):
    """A text stream in front of a LogWriter, to stand for `sys.stderr`.

    Prints and stack traces do not block either.
    """

    def __init__(self, writer: LogWriter, *, terminal: bool) -> None:
        """`terminal`: what `isatty` returns."""
        super().__init__()
        self._writer = writer
        self._terminal = terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in typeshed
        """The encoding of what is written."""
        return "utf-8"

    def isatty(self) -> bool:
        """Whether the text reaches a terminal."""
        return self._terminal

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str, /) -> int:
        """Queue text; it is lost if the queue is full."""
        if text:
            self._writer.write(text)
        return len(text)


def _duplicate(fd: int | None) -> int | None:
    try:
        return None if fd is None else os.dup(fd)
    except OSError:
        return None
