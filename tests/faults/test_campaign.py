"""The harness on the real stack: one fixed seed with a fault for each role, and two planted bugs it must catch."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults import ci, long
from tests.faults.jobs import LOGS, Result
from tests.faults.mutants import MUTANTS
from tests.faults.mutants.planting import plant_in_package
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
            name: pool.submit(campaign, *arguments, "--keep", str(LOGS / f"test-{name}"))
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


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.program is None])
def test_a_planted_bug_is_python_that_compiles(name: str, tmp_path: Path):
    package = plant_in_package(MUTANTS[name], tmp_path)
    changed = {package / change.file for change in MUTANTS[name].changes}
    assert all(file.read_text() != (ROOT / file.relative_to(package)).read_text() for file in changed)
    for file in changed:
        if file.suffix == ".py":
            compile(file.read_text(), file, "exec")


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.program is not None])
def test_a_planted_bug_fits_the_rust_sources(name: str, tmp_path: Path):
    for file in {change.file for change in MUTANTS[name].changes}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, tmp_path / file)
    for change in MUTANTS[name].changes:
        change.apply(tmp_path)


def test_the_seeds_of_ci_share_all_scenarios_and_plant_every_bug():
    wanted = ci.jobs()
    shared = [name for job in wanted if not job.mutant for name in job.arguments[-1].split(",")]
    assert sorted(shared) == sorted(load_all())
    assert {job.name for job in wanted if job.mutant} == set(MUTANTS)
    assert [job.name for job in wanted if "--direct" in job.arguments] == [f"seed-{ci.DIRECT}"]
    (stored,) = (job for job in wanted if "stored" in job.arguments)
    assert "flushall" in stored.arguments[-1].split(",")


def test_a_long_campaign_sums_up_its_seeds_and_is_valid_only_if_all_are():
    wanted = long.jobs([5, 6, 7, 8])
    assert ["--direct" in job.arguments for job in wanted] == [False, True, False, False]
    assert ["stored" in job.arguments for job in wanted] == [False, False, True, False]
    found = {
        "verdict": "valid", "seed": 5, "faults_injected": 100, "scenarios": {"reset": 3, "poison": 0}, "accepted": 40,
        "lost": 0, "duplicate_effects": 0, "unprotected": 2, "recovered_s": {"reset": 0.5, "poison": None},
    }  # fmt: skip
    worse = {**found, "verdict": "invalid", "seed": 6, "lost": 1, "duplicate_effects": 2, "recovered_s": {"reset": 3.5}}
    results = [Result(wanted[0], found, passed=True, took_s=1), Result(wanted[1], worse, passed=False, took_s=1)]
    last = long.summary(results, 2.0)
    assert (last["verdict"], last["seeds"]) == ("invalid", {5: "valid", 6: "invalid"})
    assert (last["faults"], last["kinds"], last["accepted"]) == (200, 1, 80)
    assert (last["lost"], last["duplicated"], last["unprotected"]) == (1, 2, 4)
    assert (last["recovery_p50_s"], last["recovery_max_s"]) == (2.0, 3.5)
    assert long.summary(results[:1], 1.0)["verdict"] == "valid"
    assert long.summary([Result(wanted[0], {}, passed=False, took_s=1)], 1.0)["recovery_max_s"] is None


def test_wrong_use_says_what_there_is():
    done = subprocess.run(
        [*CAMPAIGN, "--scenario", "earthquake"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unknown scenario earthquake" in done.stderr
    assert "flushall" in done.stderr
