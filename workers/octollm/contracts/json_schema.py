"""Validators of JSON Schemas that come from plans, recipes and models.

The only place that creates one, because a schema may be hostile: a `$ref` outside the document is refused and never
fetched, and a `pattern` is matched in linear time.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import jsonschema_rs

from octollm.errors import SchemaError

Validator = jsonschema_rs.Validator
"""`iter_errors(value)` yields one object per broken rule: `instance_path`, `schema_path`, `message`."""
_LINEAR = jsonschema_rs.RegexOptions()
"""Rust's `regex` instead of the backtracking default: no look-around, no back-references."""
_SHOWN = 300


def validator(schema: Mapping[str, Any]) -> Validator:
    """Return the validator of a schema.

    Raises SchemaError if it is not one, or refers to another document.
    """
    try:
        return jsonschema_rs.validator_for(dict(schema), retriever=_refuse, pattern_options=_LINEAR)
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
        message = error.message if isinstance(error, jsonschema_rs.ValidationError) else str(error)
        raise SchemaError(message[:_SHOWN]) from error


def _refuse(_uri: str) -> NoReturn:
    raise ValueError("a reference outside of the schema is not followed")
