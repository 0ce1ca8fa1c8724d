"""How topics and their limits are described to the scripts; `schemas/rust/src/fairness.rs` describes one topic."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from octollm.protocol.fairness import Fairness
from octollm.protocol.operations import Lease, Publish, ScriptCall
from octollm.resources import checkout, schemas_path
from octollm.topology import Topology, load_topology

JUDGE = "{l1}:arm.judge:normal"


@pytest.fixture(scope="module")
def topology() -> Topology:
    root = checkout()
    assert root is not None
    found = load_topology(root / "streams.yaml", schemas_path())
    judge = replace(found.topics["arm.judge"], window=64, max_running_per_tenant=3)
    coder = replace(found.topics["arm.coder"], window=None)
    topics = MappingProxyType({**found.topics, "arm.judge": judge, "arm.coder": coder})
    return replace(found, lanes=("l0", "l1"), topics=topics)


def test_a_topic_is_described_as_its_script_reads_it(topology: Topology):
    fairness = Fairness(topology, "l1")
    keys = ["a", "b", "c", "d"]
    args: list[Any] = []
    fairness.describe([fairness.limited[JUDGE]], keys, args)
    assert args == [5, 6, 1, 7, 3, 64, 1, "judge"]
    assert len(keys) == 16
    assert keys[4:10] == [
        "{l1}:ended-runs",
        "{l1}:dead",
        "{l1}:arm.judge:running",
        "{l1}:arm.judge:high",
        "{l1}:arm.judge:high:waiting",
        "{l1}:arm.judge:high:ring",
    ]


def test_the_shares_of_the_lanes_are_the_cap(topology: Topology):
    judge = topology.topics["arm.judge"]
    assert [topology.cap_in(judge, lane) for lane in topology.lanes] == [2, 1]
    assert topology.cap_in(topology.topics["arm.coder"], "l0") == 0


def test_only_what_has_limits_costs_anything(topology: Topology):
    fairness = Fairness(topology, "l1")
    assert "{l1}:arm.coder:low" in fairness.topics
    assert "{l1}:arm.coder:low" not in fairness.limited
    assert "{l1}:steps.done" not in fairness.topics
    assert set(fairness.unprioritized) == {"{l1}:steps.done", "{l1}:results", "{l1}:dead"}
    plain = ScriptCall(fairness=fairness)
    plain.add_completion(Lease("{l1}:arm.coder:low", "1-0", 1), "coder", [Publish("{l1}:steps.done", {"type": "x"})])
    plain.add_limits()
    assert len(plain.keys) == 2
    limited = ScriptCall(fairness=fairness)
    limited.add_completion(
        Lease("{l1}:arm.coder:low", "1-0", 1), "coder", [Publish(JUDGE, {"type": "x"}), Publish(JUDGE, {"type": "y"})]
    )
    limited.add_limits()
    assert limited.args[-8:] == [3, 4, 1, 5, 3, 64, 1, "judge"]
