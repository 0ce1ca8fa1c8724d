"""Strict JSON by `schemas/vectors/strict_json.json` (Rust reads the same file), its depth, and hostile sizes."""

import json
from pathlib import Path
from subprocess import run
from sys import executable

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octollm.contracts import strict_json
from octollm.errors import ContractError

CASES = json.loads((Path(__file__).resolve().parents[2] / "schemas/vectors/strict_json.json").read_bytes())
BAD = {
    **{name: text.encode() for name, text in CASES["bad"].items()},
    **{name: bytes.fromhex(text) for name, text in CASES["bad_bytes"].items()},
}


def refusal(data: bytes, max_depth: int = strict_json.MAX_DEPTH) -> str:
    with pytest.raises(ContractError) as caught:
        strict_json.check(data, max_depth)
    assert caught.value.reason == "malformed"
    return caught.value.message


@pytest.mark.parametrize("text", CASES["good"])
def test_strict_json_is_taken(text: str):
    strict_json.check(text.encode())


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_anything_else_is_refused(data: bytes):
    assert refusal(data)


@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_64_levels_are_taken_and_65_are_not(start: str, end: str):
    strict_json.check((start * 64 + "1" + end * 64).encode())
    assert "64 levels" in refusal((start * 65 + "1" + end * 65).encode())


def test_the_bound_on_the_nesting_can_be_another_one():
    strict_json.check(b"[[1]]", max_depth=2)
    assert "1 levels" in refusal(b"[[1]]", max_depth=1)


def test_brackets_in_strings_and_side_by_side_are_no_nesting():
    strict_json.check(json.dumps([[]] * 1000).encode())
    strict_json.check(json.dumps(['\\"[{' * 100, [1]]).encode())


def test_deep_nesting_is_refused_before_a_parser_recurses():
    assert "64 levels" in refusal(b"[" * 1_000_000)


def test_a_string_without_an_end_costs_no_more_than_its_length():
    """A quadratic scan would need hours for this text; a process of its own can be ended."""
    script = (
        "from octollm.contracts import strict_json\n"
        "from octollm.errors import ContractError\n"
        "try:\n"
        "    strict_json.check(b'[],' * 65 + b'\"' + b'\\\\\"' * 1_000_000)\n"
        "except ContractError as error:\n"
        "    print(error.reason)\n"
    )
    done = run([executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "malformed\n"


FRAGMENTS = st.sampled_from(
    [
        *('{"a":1}', '"', "-0", "-0.0", "1e999", "18446744073709551616", "-9223372036854775809", "NaN", "1.5E-3"),
        *("\\u0000", "\\ud800", "\\\\", ":", "{", "}", "[", "]", ",", " ", "null", "true", '"a":', '"a" :', "\ufeff"),
        *("0", "1", "é", "\t"),
    ]
)


@settings(max_examples=2000, deadline=None)
@given(st.lists(FRAGMENTS, max_size=12).map("".join))
@example('["a", {"b":-0}]')
@example('{"a":1,"b":{"c":2,"c":3}}')
def test_the_quick_look_takes_only_what_the_slow_one_takes(text: str):
    data = text.encode()
    if strict_json._surely_strict(data):
        strict_json._check_slowly(data)
        assert json.loads(data) == orjson.loads(data)


def test_the_quick_look_is_enough_for_a_message():
    assert strict_json._surely_strict(
        b'{"at":"2026-01-02T03:04:05.678Z","n":[-1,0.5,{"x":"-0"}],"text":"a\\nb \xc3\xa9"}'
    )
