"""Bytes to models and back: strict JSON first, then pydantic on the bytes; orjson writes."""

from collections.abc import Mapping
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from octollm.contracts import strict_json
from octollm.errors import ContractError

Model = TypeVar("Model", bound=BaseModel)


def read(model: type[Model], data: bytes) -> Model:
    """The event in `data`. Raises ContractError that names the field, never its value."""
    strict_json.check(data)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise ContractError("schema", _explain(error)) from error


def write(model: BaseModel) -> bytes:
    """The model as JSON. A field that may be absent and is None is left out."""
    return orjson.dumps(_plain(model))


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        if "root" in type(value).model_fields:
            return _plain(getattr(value, "root"))  # noqa: B009  mypy: only root models have it
        return {
            name: _plain(item)
            for name, field in type(value).model_fields.items()
            if (item := getattr(value, name)) is not None or field.is_required()
        }
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _explain(error: ValidationError) -> str:
    """The first fault, by its place in the document."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:80] for part in first["loc"]) or "the document"
    more = error.error_count() - 1
    return f"{place}: {first['msg']}" + (f" (and {more} more)" if more else "")
