"""Schemas of answers: what providers enforce, how a prompt describes them, and checks of answers.

Pure.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from octollm.contracts import strict_json
from octollm.contracts.json_schema import validator
from octollm.errors import ContractError

_MAX_FAULTS = 5
_ENFORCED = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "description"}
)
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})


def enforceable(schema: Mapping[str, Any]) -> bool:
    """Whether providers can make a model keep it: each object closed, each property required, each value typed.

    An object with keys of the model's own choosing is not; it is asked for in words, and checked afterwards.
    """
    if "anyOf" in schema:
        return all(enforceable(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return True
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(properties)
            return closed and all(enforceable(one) for one in properties.values())
        case "array":
            return isinstance(schema.get("items"), Mapping) and enforceable(schema["items"])
        case kind:
            return isinstance(kind, str) and kind in _TYPES


def enforced(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an enforceable schema that providers take; the rest is checked when the answer is there."""
    kept: dict[str, Any] = {name: value for name, value in schema.items() if name in _ENFORCED}
    if "properties" in kept:
        kept["properties"] = {name: enforced(one) for name, one in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = enforced(kept["items"])
    if "anyOf" in kept:
        kept["anyOf"] = [enforced(one) for one in kept["anyOf"]]
    return kept


def in_words(schema: Mapping[str, Any]) -> str:
    """Describe a schema that the provider does not enforce, for a prompt; the same bytes for the same schema."""
    text = orjson.dumps(schema, option=orjson.OPT_SORT_KEYS).decode()
    return f"Answer with one JSON value and nothing else. It must be valid by this JSON Schema:\n{text}"


def value_of(text: str, schema: Mapping[str, Any]) -> tuple[Any, str | None]:
    """The answer as a JSON value, and None or what is wrong with it, for the model to read."""
    raw = _json_in(text).encode("utf-8", "surrogatepass")
    try:
        strict_json.check(raw)
    except ContractError as error:
        return None, f"The answer is no JSON that can be read: {error}."
    value = orjson.loads(raw)
    faults = []
    for broken in validator(schema).iter_errors(value):
        place = ".".join(str(part) for part in broken.instance_path) or "the whole answer"
        faults.append(f"- {place}: {broken.message[:300]}")
        if len(faults) == _MAX_FAULTS:
            break
    return value, "The answer breaks the schema:\n" + "\n".join(faults) if faults else None


def _json_in(text: str) -> str:
    """Models without enforcement like to wrap JSON in a code fence or a sentence."""
    text = text.strip()
    if text[:1] in ("{", "["):
        return text
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    end = max(text.rfind("}"), text.rfind("]"))
    return text[min(starts) : end + 1] if starts and end > min(starts) else text
