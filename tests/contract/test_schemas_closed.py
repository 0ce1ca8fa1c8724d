"""Every event schema is readable JSON, closed, and requires only what it describes."""

import json
from pathlib import Path

import pytest

EVENTS = sorted((Path(__file__).resolve().parents[2] / "schemas/events").glob("*.schema.json"))


def test_all_twelve_events_have_a_schema():
    assert len(EVENTS) == 12


@pytest.mark.parametrize("file", EVENTS, ids=lambda file: file.name.removesuffix(".schema.json"))
def test_each_object_is_closed_and_requires_only_what_it_describes(file: Path):
    schema = json.loads(file.read_bytes())
    assert schema["$id"] == f"urn:octollm:{file.name.removesuffix('.schema.json')}"
    objects = [part for part in (schema, *schema.get("$defs", {}).values()) if "properties" in part]
    assert objects, "no object to judge"
    for part in objects:
        assert part["additionalProperties"] is False, part["title"]
        assert set(part["required"]) <= set(part["properties"]), part["title"]
