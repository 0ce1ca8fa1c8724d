"""The executor takes what is described to a planning model and refuses what the description refuses."""

import json
import subprocess
from typing import Any

import pytest

from octollm.runtime.programs import find_program
from tests.helpers.described import broken, examples, fits

EXAMPLES = [example for _, example in examples("executor")]


def accepted(value: dict[str, Any]) -> bool:
    """Ask the built program."""
    program = find_program("octollm-executor")
    done = subprocess.run([program, "run", "-"], input=json.dumps(value).encode(), capture_output=True, check=False)
    assert done.returncode in (0, 2), f"the executor ended with {done.returncode}"
    return done.returncode == 0


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_described_input_is_one_that_the_executor_takes(example):
    assert fits("executor", example)
    assert accepted(example)


def test_what_the_description_refuses_the_executor_refuses_and_the_other_way_round():
    for value in broken(EXAMPLES[0]):
        assert fits("executor", value) == accepted(value), value
