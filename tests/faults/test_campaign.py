"""The harness on the real stack: one fixed seed with a fault for each role, and two planted bugs it must catch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CAMPAIGN = Path(__file__).with_name("campaign.py")
SCENARIOS = (
    "kill_reflex_after_effect",
    "kill_orchestrator_after_commit",
    "kill_effect_after_effect",
    "kill_judge_after_commit",
    "kill_executor_before_commit",
    "two_ingresses",
    "late_result",
)


def campaign(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the last line, everything else."""
    command = [sys.executable, str(CAMPAIGN), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    *others, last = done.stdout.splitlines() or [""]
    return done.returncode, json.loads(last or "{}"), "\n".join(others) + done.stderr


def test_a_fault_for_each_role_breaks_no_promise():
    code, found, said = campaign("--seed", "7", "--tasks", "80", "--minutes", "0.4", "--scenario", ",".join(SCENARIOS))
    assert (code, found.get("verdict")) == (0, "valid"), said
    assert found["accepted"] == found["terminal"] >= 80
    assert all(found["scenarios"].values()), found["scenarios"]


@pytest.mark.parametrize(
    ("mutant", "kinds"), [("no_fence", ("duplicate_effects",)), ("dropped_message", ("lost", "duplicate_effects"))]
)
def test_a_planted_bug_is_caught(mutant: str, kinds: tuple[str, ...]):
    code, found, said = campaign("--mutant", mutant, "--tasks", "60", "--minutes", "0.2")
    assert (code, found.get("verdict")) == (1, "invalid"), said
    assert any(found[kind] for kind in kinds), found


def test_wrong_use_says_what_there_is():
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--scenario", "earthquake"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown scenario earthquake" in done.stderr
    assert "flushall" in done.stderr
