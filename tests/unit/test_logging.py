"""Log lines: one JSON object each, with the ids that were bound, without bodies and passwords."""

import io
import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from octollm.observability.logging import configure_logging
from octollm.settings.sections import LogSettings


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, out = logging.getLogger(), io.StringIO()
    before = (root.handlers[:], root.level)
    configure_logging(LogSettings(level="info", format="json"), out)
    yield out
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_bound_ids_and_no_bodies(stream):
    with structlog.contextvars.bound_contextvars(task="t", step="s", tenant="n", trace="r"):
        structlog.get_logger("octollm.x").info("did it", body="private", output={"a": 1}, count=3)
    (line,) = lines(stream)
    assert {
        "task": "t",
        "step": "s",
        "tenant": "n",
        "trace": "r",
        "count": 3,
        "event": "did it",
    }.items() <= line.items()
    assert "private" not in stream.getvalue()
    assert line["output"] == "(left out)"


def test_passwords_of_urls_are_hidden_also_in_other_libraries_messages_and_in_traces(stream):
    logging.getLogger("somebody").warning("cannot reach %s", "redis://user:hunter2@host/0")
    logging.getLogger("somebody").warning("sent %s", f"octo_{'a' * 12}_{'hunter2' * 7}abc")
    try:
        raise ValueError("postgresql://me:hunter2@host/db")  # noqa: TRY301  the trace is the point
    except ValueError:
        structlog.get_logger("octollm.x").exception("broke")
    assert "hunter2" not in stream.getvalue()
    assert [line["level"] for line in lines(stream)] == ["warning", "warning", "error"]


def test_what_is_below_the_level_is_not_written(stream):
    structlog.get_logger("octollm.x").debug("detail")
    logging.getLogger("httpx").info("chatter")
    assert stream.getvalue() == ""


def test_the_console_form_is_for_readers(stream):
    out = io.StringIO()
    configure_logging(LogSettings(level="info", format="console"), out)
    structlog.get_logger("octollm.x").info("did it", task="t")
    assert "did it" in out.getvalue()
    assert not out.getvalue().startswith("{")
