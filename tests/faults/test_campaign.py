"""The harness on the real stack: one fixed seed with a fault for each role, and two planted bugs it must catch."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults import ci
from tests.faults.mutants import MUTANTS, plant
from tests.faults.scenarios import load_all
from tests.faults.stage import ROOT

CAMPAIGN = [sys.executable, "-m", "tests.faults.campaign"]
SCENARIOS = (
    "kill_reflex_after_effect",
    "kill_orchestrator_after_commit",
    "kill_effect_after_effect",
    "kill_judge_after_commit",
    "kill_executor_before_commit",
    "kill_archive_after_commit",
    "kill_memory_after_commit",
    "two_ingresses",
    "late_result",
)
BUGS = ("no_fence", "dropped_message")


def campaign(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the last line, everything else."""
    command = [*CAMPAIGN, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    *others, last = done.stdout.splitlines() or [""]
    return done.returncode, json.loads(last or "{}"), "\n".join(others) + done.stderr


@pytest.fixture(scope="module")
def campaigns() -> Iterator[dict[str, Future[tuple[int, dict[str, Any], str]]]]:
    """All at once, since each of them mostly waits."""
    asked: dict[str, tuple[str, ...]] = {
        "none": ("--seed", "7", "--tasks", "80", "--minutes", "0.2", "--scenario", ",".join(SCENARIOS))
    }
    asked |= {bug: ("--mutant", bug, "--tasks", "40", "--minutes", "0.1") for bug in BUGS}
    with ThreadPoolExecutor(len(asked)) as pool:
        yield {
            name: pool.submit(campaign, *arguments, "--keep", str(ci.LOGS / f"test-{name}"))
            for name, arguments in asked.items()
        }


def test_a_fault_for_each_role_breaks_no_promise(campaigns):
    code, found, said = campaigns["none"].result()
    assert (code, found.get("verdict")) == (0, "valid"), said
    assert found["accepted"] == found["terminal"] >= 80
    assert all(found["scenarios"].values()), found["scenarios"]


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(campaigns, bug: str):
    code, found, said = campaigns[bug].result()
    assert (code, found.get("verdict"), found.get("caught")) == (1, "invalid", True), said


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_bug_is_python_that_compiles(mutant: str, tmp_path: Path):
    package = plant(mutant, tmp_path)
    changed = {package / change.file for change in MUTANTS[mutant].changes}
    assert all(file.read_text() != (ROOT / file.relative_to(package)).read_text() for file in changed)
    for file in changed:
        if file.suffix == ".py":
            compile(file.read_text(), file, "exec")


def test_the_seeds_of_ci_share_all_scenarios_and_plant_every_bug():
    wanted = ci.jobs()
    shared = [name for job in wanted if not job.mutant for name in job.arguments[-1].split(",")]
    assert sorted(shared) == sorted(load_all())
    assert {job.name for job in wanted if job.mutant} == set(MUTANTS)
    assert [job.name for job in wanted if "--direct" in job.arguments] == [f"seed-{ci.DIRECT}"]
    (stored,) = (job for job in wanted if "stored" in job.arguments)
    assert "flushall" in stored.arguments[-1].split(",")


def test_wrong_use_says_what_there_is():
    done = subprocess.run(
        [*CAMPAIGN, "--scenario", "earthquake"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown scenario earthquake" in done.stderr
    assert "flushall" in done.stderr
