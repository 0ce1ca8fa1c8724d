"""Events of a run are written without their model: each kind is read back by it, and there are no others."""

import json
from pathlib import Path
from typing import get_args

import pytest

from octollm.contracts import TaskEvent, read
from octollm.contracts.ids import new_task_id, utc_now
from octollm.orchestrator.task_events import EventName, Told

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "schemas/events/task.event.v1.schema.json").read_bytes())


def test_every_kind_has_a_name_here():
    assert sorted(get_args(EventName)) == sorted(SCHEMA["properties"]["event"]["enum"])


@pytest.mark.parametrize("event", get_args(EventName))
@pytest.mark.parametrize(
    "about", [{}, {"step": "a", "round": 0, "attempt": 1, "arm": "noop"}, {"state": "failed", "reason": "poison"}]
)
@pytest.mark.parametrize("detail", [None, "why é"])
def test_each_is_what_its_model_reads(event: EventName, about: dict[str, str | int | None], detail: str | None):
    task, now = new_task_id("l0"), utc_now()
    told = Told.of(task, 2, 3, "default", now, event, detail, **about)
    expected = {"task": task, "run": 2, "seq": 3, "tenant": "default", "at": now, "event": event, **about}
    if detail is not None:
        expected["detail"] = detail
    assert read(TaskEvent, told.body).model_dump(exclude_none=True) == expected
    assert (told.task, told.run, told.seq, told.tenant, told.at, told.event, told.detail) == (
        *(task, 2, 3, "default", now, event),
        detail,
    )
