"""Writes the vectors that judge both languages, from `schemas/events` and the hand-written `vectors/*/valid`.

For each event: `valid/edge_*.json` (every length and number at its bound), `invalid/<path>.<rule>.json` (ONE broken
rule each; the last part of the path is the field that the refusal must name) and `codec/*.bin` (bytes that are no
strict JSON, whatever the schema). `--check` only compares. Called by `schemas/generate.py`.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
EVENTS = ROOT / "events"
VECTORS = ROOT / "vectors"

Json = Any  # a decoded document or a part of one
Schema = dict[str, Any]
Place = tuple[str | int, ...]
Broken = tuple[Place, str, Json]  # the field's place, the rule, the whole broken document

SUFFIX = ".schema.json"
EDGE = "edge_"
UNKNOWN = "surplus"
FOREIGN = "x-foreign"  # marks a schema of another event: its own vectors judge it in full
WHOLE_FLOAT = "whole_float"  # 5.0 is an integer to JSON Schema, but not to us
FACES = "\N{GRINNING FACE}"  # one code point, two UTF-16 units, four bytes: shows who counts what
ULID = "01arz3ndektsv4rrffq69g5fav"
HEX = "0123456789abcdef" * 4
TIME = "2026-01-31T12:00:00.000Z"

# For each pattern of the schemas: the shortest and the longest text that fit, and near misses by name.
PATTERNS: dict[str, tuple[str, str, dict[str, str]]] = {
    "^l[0-9]{1,4}-[0-9a-hjkmnp-tv-z]{26}$": (
        f"l0-{ULID}",
        f"l9999-{ULID}",
        {
            "too_long": f"l0-{ULID}0",
            "lane": f"l12345-{ULID}",
            "case": f"l0-{ULID.upper()}",
            "outside_alphabet": f"l0-u{ULID[1:]}",
        },
    ),
    "^[a-z][a-z0-9_-]{0,62}$": ("a", "a" + "9_-" * 20 + "zz", {"too_long": "a" * 64, "case": "A", "digit": "9a"}),
    "^[a-z0-9][a-z0-9_-]{0,62}$": ("0", "0" + "9_-" * 20 + "zz", {"too_long": "a" * 64, "case": "A", "dash": "-a"}),
    "^[a-z][a-z0-9_.-]{0,62}$": ("a", "a" + "9_.-" * 15 + "zz", {"too_long": "a" * 64, "case": "A", "digit": "9a"}),
    "^[a-z][a-z0-9_]{0,62}$": ("a", "a" + "9_" * 31, {"too_long": "a" * 64, "case": "A", "dash": "a-b"}),
    "^https?://[A-Za-z0-9._:\\[\\]-]{1,260}([/?][A-Za-z0-9._~:/?@!$&()*+,;=%\\[\\]-]{0,1700})?$": (
        "http://a",
        "https://" + "a" * 260 + "/" + "%" * 1700,
        {
            "scheme": "ftp://a",
            "scheme_case": "HTTPS://a",
            "no_host": "https:///a",
            "long_host": "https://" + "a" * 261,
            "user": "https://a@b/",
            "fragment": "https://a/#b",
            "fragment_of_host": "https://a#b",
            "backslash": "https://a\\b",
            "blank": "https://a/ b",
            "too_long": "https://a/" + "b" * 1701,
            "not_ascii": f"https://{FACES}/",
        },
    ),
    "^[0-9a-f]{64}$": (HEX, HEX, {"too_long": HEX + "0", "too_short": HEX[1:], "case": HEX.upper()}),
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$": (
        TIME,
        TIME,
        {"offset": TIME.replace("Z", "+00:00"), "seconds": TIME.replace(".000", ""), "comma": TIME.replace(".", ",")},
    ),
}


def load(event: str) -> Schema:
    """The event's schema with every reference resolved, so that it stands alone."""
    schema = json.loads((EVENTS / f"{event}{SUFFIX}").read_bytes())
    resolved = _resolve(schema, schema)
    resolved.pop("$defs", None)
    resolved.pop("$id", None)
    return dict(resolved)


def _resolve(node: Json, root: Schema) -> Json:
    if isinstance(node, list):
        return [_resolve(item, root) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if reference is None:
        return {key: _resolve(item, root) for key, item in node.items()}
    if reference.startswith("#/$defs/"):
        return _resolve(root["$defs"][reference.removeprefix("#/$defs/")], root)
    return {**load(reference.removesuffix(SUFFIX)), FOREIGN: True}


def form(schema: Schema, value: Json) -> tuple[Schema, str | None]:
    """The schema that holds for `value`, and its tag's field where the schema is a tagged union."""
    if "oneOf" not in schema:
        return schema, None
    tag = schema["discriminator"]["propertyName"]
    for branch in schema["oneOf"]:
        if branch["properties"][tag]["const"] == value[tag]:
            return branch, tag
    raise SystemExit(f"no form of the union has {tag} {value[tag]!r}")


def mutants(schema: Schema, document: Json) -> Iterator[Broken]:
    """Every way to break one rule of `schema` in `document`."""
    known, tag = form(schema, document)
    yield ("document",), "array", list(document.values())
    yield ("document",), "null", None
    for place, rule, value in _of_object(known, document):
        # The tag's own rules are the union's, not a form's.
        yield (place if tag is None or place == (tag,) else (document[tag], *place)), rule, value


def _of_object(schema: Schema, value: dict[str, Any]) -> Iterator[Broken]:
    """The ways to break an object: its set of fields, then each field in turn."""
    properties = schema.get("properties", {})
    if schema.get("additionalProperties") is False:
        yield (UNKNOWN,), "unknown", {**value, UNKNOWN: 1}
    for name in schema.get("required", []):
        yield (name,), "missing", {key: item for key, item in value.items() if key != name}
    for name, item in value.items():
        inner = properties.get(name, schema.get("additionalProperties"))
        if isinstance(inner, dict):
            if name not in schema.get("required", []):
                yield (name,), "null", {**value, name: None}
            for place, rule, broken in _of_value(inner, item):
                yield (name, *place), rule, {**value, name: broken}


def _of_value(schema: Schema, value: Json) -> Iterator[Broken]:
    known, tag = form(schema, value)
    kind = known.get("type")
    if isinstance(kind, list):  # any JSON value
        return
    if "const" in known or "enum" in known:
        yield from _here({"word": UNKNOWN, "type": 1})
    elif kind == "string":
        yield from _here(_text_faults(known, value))
    elif kind == "integer":
        yield from _here(_integer_faults(known))
    elif kind == "boolean":
        yield from _here({"text": "true", "type": 1})
    elif kind == "array":
        yield from _of_array(known, value)
    elif kind == "object":
        yield from _here({"array": list(value.values()), "type": UNKNOWN})
        if "maxProperties" in known:
            yield (
                (),
                "too_many",
                _filled(edge(known["additionalProperties"], "", high=False), known["maxProperties"] + 1),
            )
        inner = _of_object(known, value)
        yield from (one for one in inner if not known.get(FOREIGN) or one[1] in {"missing", "unknown"})
    else:
        raise SystemExit(f"the mutator does not know the type {kind!r}; teach it")
    if tag:
        other = next(word for one in schema["oneOf"] if (word := one["properties"][tag]["const"]) != value[tag])
        yield (), "swapped_tag", {**value, tag: other}


def _of_array(schema: Schema, value: list[Any]) -> Iterator[Broken]:
    if not value:  # another example has items to break
        return
    items, first, rest = schema["items"], value[0], value[1:]
    yield (), "type", {"0": first}
    yield (), "too_many", [edge(items, first, high=False)] * (schema["maxItems"] + 1)
    yield (0,), "type", [UNKNOWN, *rest]
    yield (0,), "array", [list(first.values()), *rest]
    for place, rule, broken in _of_object(items, first):
        yield (0, *place), rule, [broken, *rest]


def _here(faults: dict[str, Any]) -> Iterator[Broken]:
    for rule, broken in faults.items():
        yield (), rule, broken


def _text_faults(schema: Schema, value: str) -> dict[str, Any]:
    faults: dict[str, Any] = {"type": 1}
    if pattern := schema.get("pattern"):
        misses = {"newline": value + "\n", **PATTERNS[pattern][2]}
        for rule, miss in misses.items():
            if re.fullmatch(pattern, miss):
                raise SystemExit(f"{miss!r} fits {pattern}, so it breaks no rule ({rule})")
        faults |= misses
    if least := schema.get("minLength"):
        faults["too_short"] = "x" * (least - 1)
    if most := schema.get("maxLength"):
        faults["too_long"] = "x" * (most + 1)
    return faults


def _integer_faults(schema: Schema) -> dict[str, Any]:
    low = schema["minimum"]
    return {
        "below": low - 1,
        "above": schema["maximum"] + 1,
        WHOLE_FLOAT: float(low + 1),
        "text": str(low + 1),
        "bool": True,
    }


def _filled(item: Json, size: int) -> dict[str, Any]:
    return {f"key_{number}": item for number in range(size)}


def edge(schema: Schema, value: Json, *, high: bool) -> Json:
    """`value` with everything in it as large, or as small, as the schema takes it."""
    known, _ = form(schema, value)
    if "const" in known or "enum" in known or known.get(FOREIGN):
        return value
    if "properties" in known:
        names = value if high else known["required"]
        return {name: edge(known["properties"][name], value[name], high=high) for name in names}
    match known.get("type"):
        case "string":
            found: Json = _edge_of_text(known, high=high)
        case "integer":
            found = known["maximum" if high else "minimum"]
        case "array":
            found = [edge(known["items"], value[0], high=False)] * known["maxItems"] if high else []
        case "object" if not high:
            found = {}
        case "object" if "maxProperties" in known:
            found = _filled(edge(known["additionalProperties"], "", high=True), known["maxProperties"])
        case _:
            found = value
    return found


def _edge_of_text(schema: Schema, *, high: bool) -> str:
    if "pattern" in schema:
        shortest, longest, _ = PATTERNS[schema["pattern"]]
        return longest if high else shortest
    return FACES * int(schema["maxLength"] if high else schema.get("minLength", 0))


def codec(text: str) -> dict[str, bytes]:
    """Bytes by name that no schema should see; `text` is an object that would be valid."""
    data = text.encode()
    first = json.dumps(next(iter(json.loads(text).items())))[1:-1].replace(",", ":", 1)
    escaped = f'"\\u{ord(first[1]):04x}{first[2:]}'

    def surplus(value: bytes) -> bytes:
        return data[:-1] + b',"surplus":' + value + b"}"

    return {
        "duplicate_key": b"{" + first.encode() + b"," + data[1:],
        "duplicate_key_escaped": b"{" + escaped.encode() + b"," + data[1:],
        "nan": surplus(b"NaN"),
        "infinity": surplus(b"-Infinity"),
        "nul_escape": surplus(b'"\\u0000"'),
        "lone_surrogate": surplus(b'"\\ud83d"'),
        "bad_utf8": surplus(b'"\xff"'),
        "byte_order_mark": b"\xef\xbb\xbf" + data,
        "trailing_garbage": data + b"x",
        "nested_65": surplus(b"[" * 64 + b"]" * 64),
        "integer_beyond_64_bits": surplus(b"18446744073709551616"),
        "float_beyond_double": surplus(b"1e400"),
        "cut": data[:-1],
        "empty": b"",
    }


def event_files(event: str) -> dict[Path, bytes]:
    """Every generated file of one event."""
    schema, folder = load(event), VECTORS / event
    examples = {
        path.stem: json.loads(path.read_bytes())
        for path in sorted((folder / "valid").glob("*.json"))
        if not path.name.startswith(EDGE)
    }
    if "minimal" not in examples or not any(name.startswith("full") for name in examples):
        raise SystemExit(f"{folder}/valid needs a hand-written minimal.json and a full*.json")
    found: dict[Path, bytes] = {}
    seen: set[tuple[Place, str]] = set()
    for name, document in examples.items():
        if name.startswith("full"):
            for end, high in (("low", False), ("high", True)):
                found[folder / "valid" / f"{EDGE}{end}_{name}.json"] = _bytes(edge(schema, document, high=high))
        _, tag = form(schema, document)
        for place, rule, broken in mutants(schema, document):
            # The forms of a union share most fields: one form stands for all, except for what must be there.
            common = place[1:] if tag and len(place) > 1 and rule != "missing" else place
            if (common, rule) not in seen:
                seen.add((common, rule))
                path = folder / "invalid" / f"{'.'.join(map(str, place))}.{rule}.json"
                found[path] = _bytes(broken)
    compact = json.dumps(examples["minimal"], separators=(",", ":"))
    for name, data in codec(compact).items():
        found[folder / "codec" / f"{name}.bin"] = data
    return found


def _bytes(document: Json) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def generated() -> dict[Path, bytes]:
    """Every generated file of every event."""
    events = sorted(path.name.removesuffix(SUFFIX) for path in EVENTS.glob(f"*{SUFFIX}"))
    return {path: data for event in events for path, data in event_files(event).items()}


def present() -> set[Path]:
    """The generated files that lie there now."""
    made = ("*/invalid/*", "*/codec/*", f"*/valid/{EDGE}*")
    return {path for pattern in made for path in VECTORS.glob(pattern)}


def main(arguments: list[str]) -> int:
    """0: written, or the same; 1: `--check` found a difference, named on standard error."""
    new = generated()
    old = present()
    if "--check" in arguments:
        wrong = sorted(
            path for path in new.keys() | old if path not in new or path not in old or path.read_bytes() != new[path]
        )
        for path in wrong:
            sys.stderr.write(f"{path.relative_to(ROOT.parent)} differs; run `make generate`\n")
        return 1 if wrong else 0
    for path in old - new.keys():
        path.unlink()
    for path, data in new.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
