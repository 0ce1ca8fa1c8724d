"""What is to be remembered of a task, as its recipe made it and the orchestrator stored it."""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from octollm.errors import ContractError


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Thing(_Closed):
    """An entity."""

    type: str
    name: str
    attributes: dict[str, Any] = {}


class Relationship(_Closed):
    """From one entity to another."""

    from_: Thing = Field(alias="from")
    type: str
    to: Thing
    attributes: dict[str, Any] = {}


class Remembered(_Closed):
    """A document for later searches, and what the task says about things."""

    title: str
    text: str
    collection: str = "tasks"
    attributes: dict[str, str] = {}
    entities: list[Thing] = []
    relationships: list[Relationship] = []


def remembered(stored: Mapping[str, Any]) -> Remembered:
    """From the column `tasks.memory`. Raises ContractError."""
    try:
        return Remembered.model_validate_json(orjson.dumps(stored))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:80] for part in first["loc"])
        raise ContractError("schema", f"what is to be remembered of the task: {place}: {first['msg']}") from error
