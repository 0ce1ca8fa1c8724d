"""Which refusals of Redis pass with time: the same ones in both languages, found by the code of the error alone."""

import re
from pathlib import Path

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import DataError

from octollm.errors import StoreRefusedError
from octollm.protocol.backoff import SERVER_STATES, is_transient, raise_if_refused

RUST = Path(__file__).parents[2] / "crates" / "bus" / "src" / "error.rs"


def test_both_languages_know_the_same_states():
    listed = re.search(r"const UNAVAILABLE: \[&str; \d+\] = \[(.*?)\];", RUST.read_text(), re.DOTALL)
    assert listed is not None
    assert set(re.findall(r'"([A-Z]+)"', listed[1])) | {"OOM"} == SERVER_STATES  # Rust has a type of its own for OOM


@pytest.mark.parametrize("code", sorted(SERVER_STATES))
def test_a_state_of_the_server_passes(code):
    answered = BaseParser.parse_error(f"{code} 1 127.0.0.1:7000")
    assert is_transient(answered)
    raise_if_refused(answered, "read")


@pytest.mark.parametrize(
    "line",
    [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "NOPERM this user has no permissions to run the 'subscribe' command",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "ERR argument is not a number in range: delivery",
        "ERR BUSY and LOADING and OOM are quoted here",
        "ERR user_script:7: attempt to index a nil value",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "ERR invalid password",
        "ERR unknown command 'EVALSHA', with args beginning with: ",
        "DENIED Redis is running in protected mode",
    ],
)
def test_a_refusal_of_what_was_sent_does_not(line):
    answered = BaseParser.parse_error(line)
    assert not is_transient(answered)
    with pytest.raises(StoreRefusedError, match="Redis refuses to read the stream: ") as caught:
        raise_if_refused(answered, "read the stream")
    assert caught.value.__cause__ is answered


def test_a_server_without_a_free_connection_passes():
    assert is_transient(BaseParser.parse_error("ERR max number of clients reached"))


def test_what_no_server_answered():
    assert is_transient(BrokenError("reset by peer"))
    assert is_transient(TimeoutError())
    assert not is_transient(DataError("Invalid input of type: 'dict'"))
