"""Server-sent events, however the bytes are cut and lines end."""

import pytest

from octollm.client.sse import Event, Parser
from octollm.errors import ApiError

STREAM = (
    b"\xef\xbb\xbf: a comment\n\nid: 1-1\nevent: accepted\ndata: {\ndata:  }\n\n"
    b"event: waiting\r\ndata:x\r\n\r\nretry: 5\rdata\rid: 1-2\r\rid: no data\n\nevent: ended early\ndata: lost"
)
EXPECTED = [
    Event("accepted", "{\n }", "1-1"),
    Event("waiting", "x", "1-1"),
    Event("message", "", "1-2"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int):
    parser = Parser()
    found = [event for at in range(0, len(STREAM), size) for event in parser.feed(STREAM[at : at + size])]
    assert found == EXPECTED


def test_an_event_without_its_empty_line_is_none():
    parser = Parser()
    assert list(parser.feed(b"data: half\n")) == []
    assert list(parser.feed(b"\n")) == [Event("message", "half", "")]


def test_an_id_with_nul_is_ignored():
    (event,) = Parser().feed(b"id: 1-1\nid: a\0b\ndata: x\n\n")
    assert event.id == "1-1"


def test_bytes_that_are_no_text_do_not_break_it():
    (event,) = Parser().feed(b"data: \xff\n\n")
    assert event.data == "\N{REPLACEMENT CHARACTER}"


def test_a_line_without_end_is_refused():
    parser = Parser()
    assert list(parser.feed(b"x" * 8 * 1024 * 1024)) == []
    with pytest.raises(ApiError, match="without end"):
        list(parser.feed(b"x"))
