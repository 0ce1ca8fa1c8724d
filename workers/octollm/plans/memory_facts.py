"""What memory is to keep of a task: the template as a recipe has it, and what it came to, checked."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import Field, ValidationError

from octollm.errors import InvalidInputError
from octollm.plans.checks import first_fault
from octollm.plans.file import Attribute, Closed, Collection, Long, MemoryFile, Short, Word


class _Thing(Closed):
    type: Word
    name: Short


class _Relationship(Closed):
    from_: Annotated[_Thing, Field(alias="from")]
    type: Word
    to: _Thing


class _Remembered(Closed):
    title: Short
    text: Long
    collection: Collection
    # A reference that finds nothing leaves its key out.
    attributes: dict[Word, Attribute] = Field(default_factory=dict, max_length=32)
    entities: list[_Thing] = Field(default_factory=list, max_length=200)
    relationships: list[_Relationship] = Field(default_factory=list, max_length=500)


def template_of(file: MemoryFile | None) -> Mapping[str, Any] | None:
    """The template as it is stored with the plan, defaults included."""
    return None if file is None else file.model_dump(by_alias=True)


def check(value: Any) -> dict[str, Any]:  # noqa: ANN401  whatever a template came to
    """What a template came to, as it is stored: `title`, `text`, `collection`, `attributes` (texts by name),
    `entities` (`type`, `name`) and `relationships` (`from`, `type`, `to`). Raises InvalidInputError.
    """
    try:
        return _Remembered.model_validate_json(orjson.dumps(value)).model_dump(by_alias=True)
    except ValidationError as error:
        raise InvalidInputError(first_fault(error, "memory")) from error
