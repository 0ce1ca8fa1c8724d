"""Logs of every Python process.

structlog writes JSON lines, or lines for a terminal, to standard error.

Owns the form of a log line. The standard library's loggers go the same way. Task, step, tenant and trace come
from the delivery that is being worked on. Two rules are enforced here and not left to memory:
bodies never appear, and no URL shows its password and no API key its secret.
"""

import atexit
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from octollm.observability.log_writer import LogWriter, LossyStream
from octollm.settings.sections import LogSettings

LOG_FIELDS: ContextVar[Callable[[], Mapping[str, object]] | None] = ContextVar("log fields", default=None)
"""Returns the fields that describe what the current task works on. Called only when a line is written."""

# Field names whose content comes from producers, models or programs.
_BODIES = frozenset({"body", "input", "output", "result", "payload", "goal", "original"})
_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^/@\s]*@")
_API_KEY = re.compile(r"(octo_[a-z2-7]{12})_[a-z2-7]{52}")
# Chatty below a warning, and nothing an operator acts on.
# The model SDKs write whole requests, prompts and all, at debug.
_QUIET = (
    *("asyncio", "faststream", "octollm.faststream", "httpcore", "httpx"),
    *("anthropic", "openai", "httpx2", "httpcore2"),
)


def configure_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up once per process; later calls replace the earlier set-up.

    Without `stream`, lines go to standard error through a `LogWriter`, and so does all else that is written to
    `sys.stderr` from then on: no reader that stands still and no full disk can hold up the process.
    """
    out: TextIO = stream or _lossy_stderr()
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_fields,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty())
        if console
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    handler = _Handler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.INFO if settings.level == "debug" else logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class _Handler(logging.StreamHandler[TextIO]):
    """Reports, when lines can be written again, how many were lost."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        lost = 0 if _writer is None else _writer.take_unreported()
        if lost:
            structlog.get_logger(__name__).warning("log lines were lost: they could not be written", lines=lost)


_writer: LogWriter | None = None


def _lossy_stderr() -> TextIO:
    """Replace `sys.stderr` by a stream that never blocks, once per process, and return it."""
    global _writer  # noqa: PLW0603  one per process, like standard error
    if _writer is None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        _writer = LogWriter(_fd_of(sys.stderr))
        sys.stderr = cast("TextIO", LossyStream(_writer, terminal=terminal))
        atexit.register(_writer.close)
    return sys.stderr


def _fd_of(stream: TextIO | None) -> int | None:
    """Return a stream's file descriptor; None if it is closed or has none."""
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None


def _add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the fields of what the current task works on; a processor of structlog."""
    fields = LOG_FIELDS.get()
    for name, value in () if fields is None else fields().items():
        event.setdefault(name, value)
    return event


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out bodies, passwords of URLs and secrets of API keys, also in other libraries' messages."""
    for key, value in event.items():
        if key in _BODIES:
            event[key] = "(left out)"
        elif isinstance(value, str):
            event[key] = _API_KEY.sub(r"\1_***", without_passwords(value))
    return event


def without_passwords(text: str) -> str:
    """The text with the password of every URL in it hidden; the user stays, it helps to find a mistake."""
    return _PASSWORD.sub(r"\1:***@", text)


def _json(event: EventDict, **_options: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
