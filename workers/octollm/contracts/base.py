"""What all generated models have in common.

Their types are strict, closed and frozen; optional fields are absent and never null.
"""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Base of every generated model.

    `"5"` is no integer, unknown fields are refused, nothing is changed later.
    """

    # Errors are logged and stored: they name the field and never its value.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True, defer_build=True)


def nulls(value: object) -> Iterator[str]:
    """Where null was given for an optional field, as `output.value`.

    Generated optional fields have the type `X | None`, so that absence has a value in Python. On the wire null is not
    absence. Not a validator: that would be called for each model of each message, and hardly any holds a null.
    """
    if isinstance(value, BaseModel):
        for name, item in value.__dict__.items():
            if item is None:
                if name in value.model_fields_set and not type(value).model_fields[name].is_required():
                    yield name
            else:
                yield from (f"{name}.{place}".removeprefix("root.") for place in nulls(item))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from (f"{name}.{place}" for place in nulls(item))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from (f"{number}.{place}" for place in nulls(item))
