"""Random values by a JSON Schema: some that fit it, and some that break one of its rules or nearly do."""

import copy
import random
from collections.abc import Callable
from typing import Any

_TEXTS = ("", "x", "text", "Zürich", "日本語", "a b", "\u00e9" * 3, "line\nline", "😀")
_ODD: tuple[Any, ...] = (None, True, False, 0, 1, -1, 1.0, 1.5, -0.0, 1e16, 2**53, "", "x", "1", [], [1], {}, {"a": 1})


def fitting(schema: dict[str, Any], rng: random.Random) -> Any:
    """Return a value that fits a schema made of the keywords that the shipped recipes use."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema or "oneOf" in schema:
        return fitting(rng.choice(schema.get("anyOf") or schema["oneOf"]), rng)
    kind = schema.get("type", "string")
    makers: dict[str, Callable[[dict[str, Any], random.Random], Any]] = {
        "object": _object, "array": _array, "string": _text, "integer": _integer, "number": _number,
        "boolean": lambda _schema, chance: chance.random() < 0.5, "null": lambda _schema, _chance: None,
    }  # fmt: skip
    return makers[rng.choice(kind) if isinstance(kind, list) else kind](schema, rng)


def almost(schema: dict[str, Any], rng: random.Random) -> Any:
    """Return a fitting value with one change somewhere; the top level stays an object."""
    value = copy.deepcopy(fitting(schema, rng))
    places = list(_places(value))
    holder, key = rng.choice(places) if places else (value, "x")
    match rng.randrange(5):
        case 0 if places:
            del holder[key]
        case 1:
            target = holder if isinstance(holder, dict) else value
            name = str(key) if isinstance(key, str) else "name"
            target[name[:-1] + rng.choice("xyz")] = rng.choice(_ODD)
        case 2 if places and isinstance(holder[key], str):
            holder[key] *= rng.choice((0, 2, 50, 200, 3000))
        case 3 if places and isinstance(holder[key], int | float):
            holder[key] += rng.choice((-1, 1, 0.5, -1000, 1e6))
        case _:
            holder[key] = rng.choice(_ODD)
    return value


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


def _object(schema: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    required = set(schema.get("required", ()))
    properties = schema.get("properties", {})
    made = {
        name: fitting(one, rng) for name, one in properties.items() if name in required or rng.random() < 0.5
    }  # fmt: skip
    more = schema.get("additionalProperties", True)
    if isinstance(more, dict):
        made |= {f"key{number}": fitting(more, rng) for number in range(rng.randrange(3))}
    return made


def _array(schema: dict[str, Any], rng: random.Random) -> list[Any]:
    least = schema.get("minItems", 0)
    size = rng.randint(least, min(schema.get("maxItems", 5), least + 3))
    return [fitting(schema.get("items", {}), rng) for _ in range(size)]


def _text(schema: dict[str, Any], rng: random.Random) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 10**9)
    if "pattern" in schema:
        return rng.choice(("a", "tasks", "documents", "x1"))[:most]
    text = rng.choice(_TEXTS)
    if rng.random() < 0.2 and most <= 2000:
        return (text or "x") * most if len(text or "x") == 1 else "x" * most
    return text[:most] if len(text) >= least else "x" * least


def _integer(schema: dict[str, Any], rng: random.Random) -> int | float:
    least, most = schema.get("minimum", -5), schema.get("maximum", 10**6)
    value = rng.choice((least, min(most, least + 1), min(most, least + 17)))
    return float(value) if rng.random() < 0.1 else value


def _number(schema: dict[str, Any], rng: random.Random) -> float:
    least, most = schema.get("minimum", -5), schema.get("maximum", 10**6)
    return rng.choice((least, most, (least + most) / 2))
