"""Strict JSON by `schemas/vectors/strict_json.json` (Rust reads the same file), its depth, and hostile sizes."""

import json
from pathlib import Path
from subprocess import run
from sys import executable

import pytest

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
    assert caught.value.reason == "unreadable"
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
    assert done.stdout == "unreadable\n"
