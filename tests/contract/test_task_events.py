"""Events of a run are written without their pydantic model: it validates each kind here, and there are no others."""

import json
from pathlib import Path
from typing import get_args

import pytest

from octollm.contracts import TaskEvent, read
from octollm.contracts.ids import new_task_id, utc_now
from octollm.orchestrator.task_events import EventName
from octollm.orchestrator.task_events import TaskEvent as RecordedEvent

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "schemas/events/task.event.v1.schema.json").read_bytes())


def test_the_schema_has_the_same_kinds():
    assert sorted(get_args(EventName)) == sorted(SCHEMA["properties"]["event"]["enum"])


@pytest.mark.parametrize("event", get_args(EventName))
@pytest.mark.parametrize(
    "about", [{}, {"step": "a", "round": 0, "attempt": 1, "arm": "noop"}, {"state": "failed", "reason": "poison"}]
)
@pytest.mark.parametrize("detail", [None, "why é"])
def test_each_kind_is_read_by_its_model(event: EventName, about: dict[str, str | int | None], detail: str | None):
    task, now = new_task_id("l0"), utc_now()
    recorded = RecordedEvent.build(task, 2, 3, "default", now, event, detail, **about)
    expected = {"task": task, "run": 2, "seq": 3, "tenant": "default", "at": now, "event": event, **about}
    if detail is not None:
        expected["detail"] = detail
    assert read(TaskEvent, recorded.body).model_dump(exclude_none=True) == expected
    assert (
        recorded.task,
        recorded.run,
        recorded.seq,
        recorded.tenant,
        recorded.at,
        recorded.event,
        recorded.detail,
    ) == (
        *(task, 2, 3, "default", now, event),
        detail,
    )
