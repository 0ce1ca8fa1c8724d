"""Which unexpected exceptions fail a step for good, and which count against the process."""

import csv
import struct

import pytest

from octollm.errors import RecipeError
from octollm.faults import describe, is_deterministic, may_be_process_fault

_INPUT = [
    csv.Error("new-line character seen in unquoted field"),
    KeyError("x"),
    OverflowError("cannot convert float infinity to integer"),
    RecursionError("maximum recursion depth exceeded"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ValueError("no"),
    ZeroDivisionError("division by zero"),
    struct.error("required argument is not an integer"),
    RecipeError("no"),
]
_CODE = [TypeError("no"), AttributeError("no"), AssertionError("no"), NotImplementedError("no")]
_PROCESS = [OSError(28, "No space left on device"), ImportError("no"), NameError("no"), RuntimeError("no"), EOFError()]


@pytest.mark.parametrize("error", _INPUT, ids=repr)
def test_what_an_input_causes_is_permanent_and_never_counted(error):
    assert is_deterministic(error)
    assert not may_be_process_fault(error)


@pytest.mark.parametrize("error", _CODE, ids=repr)
def test_what_wrong_code_raises_is_permanent_and_counted(error):
    assert is_deterministic(error)
    assert may_be_process_fault(error)


@pytest.mark.parametrize("error", _PROCESS, ids=repr)
def test_what_may_pass_is_tried_again_and_counted(error):
    assert not is_deterministic(error)
    assert may_be_process_fault(error)


def test_a_description_has_the_class_and_a_bounded_message():
    assert describe(ValueError("no such thing")) == "ValueError: no such thing"
    assert describe(EOFError()) == "EOFError"
    assert len(describe(ValueError("x" * 10_000))) < 600
