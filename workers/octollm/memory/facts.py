"""What a recipe wants memory to store about a task, as the orchestrator saved it in `tasks.memory`."""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from octollm.errors import ContractError


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Thing(_Closed):
    """An entity of the graph."""

    type: str
    name: str
    attributes: dict[str, Any] = {}


class Relationship(_Closed):
    """A relationship between two entities."""

    from_: Thing = Field(alias="from")
    type: str
    to: Thing
    attributes: dict[str, Any] = {}


class TaskMemory(_Closed):
    """A document to search for later, and entities and relationships for the graph."""

    title: str
    text: str
    collection: str = "tasks"
    attributes: dict[str, str] = {}
    entities: list[Thing] = []
    relationships: list[Relationship] = []


def parse_task_memory(stored: Mapping[str, Any]) -> TaskMemory:
    """Return the content of the column `tasks.memory`. Raises ContractError that names the invalid field."""
    try:
        return TaskMemory.model_validate_json(orjson.dumps(stored))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:80] for part in first["loc"])
        raise ContractError("schema", f"tasks.memory: {place}: {first['msg']}") from error
