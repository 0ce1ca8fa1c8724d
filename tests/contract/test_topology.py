"""Wrong wiring refuses to load and says what to change. `schemas/rust/tests/topology.rs` judges the same files."""

from pathlib import Path

import pytest

from octollm.errors import TopologyError
from octollm.topology import load_topology, parse_topology

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "schemas/events"
FILES = sorted((Path(__file__).resolve().parent / "topologies").glob("*.yaml"))
REFUSED, ACCEPTED = "# refused: ", "# accepted: "


def name(file: Path) -> str:
    return file.stem


def of(mark: str) -> list[Path]:
    return [file for file in FILES if file.read_text().startswith(mark)]


def test_each_file_says_in_its_first_line_what_should_become_of_it():
    assert of(REFUSED)
    assert of(ACCEPTED)
    assert len(of(REFUSED)) + len(of(ACCEPTED)) == len(FILES)
    for file in FILES:
        mark, _, reason = file.read_text().partition("\n")[0].partition(": ")
        assert reason.strip(), (file.name, mark)


@pytest.mark.parametrize("file", of(REFUSED), ids=name)
def test_wrong_wiring_is_refused_with_the_gap(file: Path):
    wanted = file.read_text().partition("\n")[0].removeprefix(REFUSED)
    with pytest.raises(TopologyError) as caught:
        load_topology(file, SCHEMAS)
    assert caught.value.message.startswith(f"{file}: ")
    assert wanted in caught.value.message


@pytest.mark.parametrize("file", of(ACCEPTED), ids=name)
def test_right_wiring_is_taken(file: Path):
    assert load_topology(file, SCHEMAS).topics.keys() >= {"tasks", "steps.done", "dead"}


def test_the_topology_that_ships_is_taken_as_it_is_written():
    found = load_topology(ROOT / "streams.yaml", SCHEMAS)
    assert found.lanes == ("l0",)
    assert found.priorities == ("high", "normal", "low")
    assert set(found.arms) == {"guardian", "judge", "executor", "planner", "coder", "retriever"}
    judge = found.arm("judge")
    assert judge is not None
    assert (judge.name, judge.lease_s, judge.timeout_s, judge.priorities) == ("arm.judge", 30, 30, True)
    assert found.arm("nobody") is None


def test_a_file_that_cannot_be_read_names_the_setting(tmp_path: Path):
    with pytest.raises(TopologyError, match="OCTOLLM_TOPOLOGY_FILE"):
        load_topology(tmp_path / "missing.yaml", SCHEMAS)


def test_the_loaded_topology_cannot_be_changed():
    found = parse_topology((ROOT / "streams.yaml").read_text(), SCHEMAS)
    with pytest.raises(TypeError):
        found.topics["more"] = found.topics["tasks"]  # type: ignore[index]
