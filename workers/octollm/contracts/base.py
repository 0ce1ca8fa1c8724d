"""What all generated models have in common: strict types, closed, frozen, optional fields absent and never null."""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Base of every generated model: `"5"` is no integer, unknown fields are refused, nothing is changed later."""

    # Errors are logged and stored: they name the field and never its value.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    @model_validator(mode="after")
    def _optional_is_absent(self, info: ValidationInfo) -> Self:
        # Generated optional fields have the type `X | None`, so that absence has a value in Python. On the wire
        # null is not absence. Only JSON is judged: code may pass None for "leave it out".
        if info.mode == "json":
            given = self.model_fields_set
            for name, value in self.__dict__.items():
                if value is None and name in given and not type(self).model_fields[name].is_required():
                    raise PydanticCustomError("null", "{field} is null; leave it out", {"field": name})
        return self
