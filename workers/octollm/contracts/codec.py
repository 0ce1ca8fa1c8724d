"""Bytes to models and back: strict JSON first, then pydantic on the bytes; orjson writes."""

from functools import cache
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from octollm.contracts import strict_json
from octollm.contracts.base import nulls
from octollm.errors import ContractError

Model = TypeVar("Model", bound=BaseModel)


def read(model: type[Model], data: bytes) -> Model:
    """The event in `data`. Raises ContractError that names the field, never its value."""
    strict_json.check(data)
    try:
        found = model.model_validate_json(data)
    except ValidationError as error:
        raise ContractError("schema", _explain(error)) from error
    # `find`, not `in`: for the reason in strict_json.
    if data.find(b"null") >= 0 and (place := next(nulls(found), None)) is not None:
        raise ContractError("schema", f"{place}: null; leave it out")
    return found


def write(value: object) -> bytes:
    """A model, or JSON values with models inside, as JSON.

    A field that may be absent and is None is left out.
    """
    return orjson.dumps(value, default=_level)


def plain(value: object) -> Any:  # noqa: ANN401  any JSON value
    """The same as what JSON has."""
    return orjson.loads(write(value))


def _level(value: object) -> object:
    """One model as a dict; orjson comes back for what is inside."""
    if not isinstance(value, BaseModel):
        raise TypeError(f"{type(value).__name__} is no JSON value")
    required = _required(type(value))
    if required is None:
        return getattr(value, "root")  # noqa: B009  mypy: only root models have it
    return {name: item for name, item in value.__dict__.items() if item is not None or name in required}


@cache
def _required(model: type[BaseModel]) -> frozenset[str] | None:
    """Fields that are always written; None for a root model."""
    if "root" in model.model_fields:
        return None
    return frozenset(name for name, field in model.model_fields.items() if field.is_required())


def _explain(error: ValidationError) -> str:
    """The first fault, by its place in the document."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part)[:80] for part in first["loc"]) or "the document"
    said = first["msg"]
    if first["type"] == "union_tag_invalid":  # pydantic's own sentence quotes the value
        said = "{discriminator} must be one of: {expected_tags}".format_map(first["ctx"])
    more = error.error_count() - 1
    return f"{place}: {said}" + (f" (and {more} more)" if more else "")
