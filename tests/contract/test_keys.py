"""Keys, lanes, ids and times by `schemas/vectors/keys.json`; `schemas/rust/tests/keys.rs` reads the same file."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from octollm.contracts import ids
from octollm.topology import LaneKeys, Topology, ingest_stream, load_topology
from octollm.topology.keys import API_KEYS, API_KEYS_USED, API_KEYS_VERSION, KINDS, KINDS_VERSION

ROOT = Path(__file__).resolve().parents[2]
CASES = json.loads((ROOT / "schemas/vectors/keys.json").read_bytes())


@pytest.fixture(scope="module")
def topology() -> Topology:
    return load_topology(ROOT / "streams.yaml", ROOT / "schemas/events")


@pytest.mark.parametrize("case", CASES["streams"], ids=lambda case: f"{case['topic']}-{case['priority']}")
def test_a_stream_is_named_by_lane_topic_and_priority(topology: Topology, case):
    assert LaneKeys(case["lane"]).stream(topology.topics[case["topic"]], case["priority"]) == case["key"]


@pytest.mark.parametrize("case", CASES["reading_order"], ids=lambda case: case["topic"])
def test_streams_stand_in_the_order_of_reading(topology: Topology, case):
    assert list(LaneKeys(case["lane"]).streams(topology.topics[case["topic"]])) == case["keys"]


def test_the_lane_has_its_fixed_keys():
    keys = LaneKeys("l0")
    assert {name: getattr(keys, name) for name in CASES["fixed"]} == CASES["fixed"]
    assert CASES["kinds"] == {"hash": KINDS, "version": KINDS_VERSION}
    assert [keys.status(case["task"]) for case in CASES["status"]] == [case["key"] for case in CASES["status"]]
    assert CASES["api_keys"] == {"keys": API_KEYS, "version": API_KEYS_VERSION, "used": API_KEYS_USED}
    assert [ingest_stream(case["tenant"]) for case in CASES["ingest"]] == [case["key"] for case in CASES["ingest"]]


@pytest.mark.parametrize("case", CASES["fairness"], ids=lambda case: case["topic"])
def test_waiting_messages_share_the_slot_of_their_stream(topology: Topology, case):
    keys = LaneKeys("l0")
    assert keys.running(topology.topics[case["topic"]]) == case["running"]
    assert (keys.waiting(case["stream"]), keys.ring(case["stream"])) == (case["waiting"], case["ring"])


@pytest.mark.parametrize("case", CASES["idempotency"], ids=lambda case: repr(case["key"][:8]))
def test_an_idempotency_key_is_hashed(case):
    assert LaneKeys("l0").idempotency(case["tenant"], case["key"]) == case["name"]


@pytest.mark.parametrize("case", CASES["lanes"], ids=lambda case: f"{case['tenant']}-{case['lanes']}")
def test_the_key_decides_the_lane(topology: Topology, case):
    lanes = tuple(f"l{number}" for number in range(case["lanes"]))
    wide = Topology(
        version=1,
        lanes=lanes,
        priorities=topology.priorities,
        ingest=topology.ingest,
        topics=topology.topics,
        live=topology.live,
    )
    assert wide.lane_for(case["tenant"], case["key"]) == f"l{case['index']}"


@pytest.mark.parametrize("case", CASES["ulids"], ids=lambda case: case["ulid"])
def test_a_ulid_is_time_and_chance(monkeypatch: pytest.MonkeyPatch, case):
    monkeypatch.setattr(time, "time_ns", lambda: case["ms"] * 1_000_000)
    monkeypatch.setattr(os, "urandom", lambda size: bytes.fromhex(case["random"])[:size])
    assert ids.new_ulid() == case["ulid"]
    assert ids.new_task_id("l3") == f"l3-{case['ulid']}"
    assert ids.lane_of(f"l3-{case['ulid']}") == "l3"


@pytest.mark.parametrize("case", CASES["times"], ids=lambda case: case["text"])
def test_a_time_has_milliseconds_and_z(monkeypatch: pytest.MonkeyPatch, case):
    monkeypatch.setattr(time, "time_ns", lambda: case["ms"] * 1_000_000)
    assert ids.utc_now() == case["text"]
    assert datetime.fromisoformat(case["text"]).tzinfo == UTC


@pytest.mark.parametrize("case", CASES["message_ids"], ids=lambda case: case["id"][-12:])
def test_a_message_id_is_built_and_read_back(case):
    parts = [case[name] for name in ("task", "run", "step", "round", "attempt")]
    assert ids.message_id(*parts) == case["id"]
    assert ids.in_flight_field(*parts[:-1]) == case["live"]
    ident = ids.parse_message_id(case["id"])
    assert ident == ids.StepIdent(*parts)
    assert ident is not None
    assert ident.in_flight_field == case["live"]


@pytest.mark.parametrize("text", CASES["not_message_ids"], ids=repr)
def test_what_is_no_message_id_is_not_read_as_one(text: str):
    assert ids.parse_message_id(text) is None
