"""What a task writes to memory: the template in its recipe, and the check of the rendered value."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from pydantic import Field, ValidationError

from octollm.errors import InvalidInputError
from octollm.plans.checks import first_error
from octollm.plans.file import Attribute, Closed, Collection, Long, MemoryFile, Short, Word


class _Entity(Closed):
    type: Word
    name: Short


class _Relationship(Closed):
    from_: Annotated[_Entity, Field(alias="from")]
    type: Word
    to: _Entity


class _MemoryFacts(Closed):
    title: Short
    text: Long
    collection: Collection
    # The key of a reference that finds nothing is left out.
    attributes: dict[Word, Attribute] = Field(default_factory=dict, max_length=32)
    entities: list[_Entity] = Field(default_factory=list, max_length=200)
    relationships: list[_Relationship] = Field(default_factory=list, max_length=500)


def memory_template(file: MemoryFile | None) -> Mapping[str, Any] | None:
    """Return the template as it is stored with the plan, including defaults; None if the recipe has none."""
    return None if file is None else file.model_dump(by_alias=True)


def check_facts(value: Any) -> dict[str, Any]:  # noqa: ANN401  any rendered template
    """Check a rendered template and return it with defaults filled in. Raises InvalidInputError.

    Its keys: `title`, `text`, `collection`, `attributes` (strings by name), `entities` (`type`, `name`) and
    `relationships` (`from`, `type`, `to`).
    """
    try:
        return _MemoryFacts.model_validate_json(orjson.dumps(value)).model_dump(by_alias=True)
    except ValidationError as error:
        raise InvalidInputError(first_error(error, "memory")) from error
