"""Logs of every Python process: structlog, as JSON lines or for a reader at a terminal, on standard error.

Owns the form of a log line. The standard library's loggers go the same way. Task, step, tenant and trace come
from the delivery that is being worked on. Two rules are enforced here and not left to memory:
bodies never appear, and no URL shows its password.
"""

import logging
import re
import sys
from typing import TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from octollm.consumer.context import add_delivery
from octollm.settings.sections import LogSettings

# Field names whose content comes from producers, models or programs.
_BODIES = frozenset({"body", "input", "output", "result", "payload", "goal", "original"})
_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):[^/@\s]*@")
# Chatty below a warning, and nothing an operator acts on.
# The model SDKs write whole requests, prompts and all, at debug.
_QUIET = (
    *("asyncio", "faststream", "octollm.faststream", "httpcore", "httpx"),
    *("anthropic", "openai", "httpx2", "httpcore2"),
)


def configure_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up once per process; later calls replace the earlier set-up."""
    out = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_delivery,
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
    handler = logging.StreamHandler(out)
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


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out bodies and the passwords of URLs, also inside messages of other libraries."""
    for key, value in event.items():
        if key in _BODIES:
            event[key] = "(left out)"
        elif isinstance(value, str):
            event[key] = without_passwords(value)
    return event


def without_passwords(text: str) -> str:
    """The text with the password of every URL in it hidden; the user stays, it helps to find a mistake."""
    return _PASSWORD.sub(r"\1:***@", text)


def _json(event: EventDict, **_options: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
