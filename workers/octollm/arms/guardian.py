"""The guardian replaces personal data and finds secrets by rules, without a model.

The rules are in `schemas/rules`.

Input `{"mode": "redact", "value": <any JSON>}` gives `{"value", "redactions": {type: count}}`.
Input `{"mode": "scan_secrets", "files": {name: text}}` or `{"mode": "scan_secrets", "value": <any JSON>}` gives
`{"clean", "findings": [{"rule", "place", "line"}]}`. A finding never contains the secret.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import orjson

from octollm.arms.base import ArmContext, invalid, is_small, require_fields
from octollm.contracts import StepRequested

Result = TypeVar("Result")
_MAX_FINDINGS = 100
_IBAN_DIGITS = {character: str(number) for number, character in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")}


class Guardian:
    """Arm `guardian`."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """Return the output described in the module. Raises PermanentError for invalid input."""
        match step.input.get("mode"):
            case "redact":
                require_fields(step.input, {"mode", "value"}, set())
                return await _call(ctx, _redact, step.input)
            case "scan_secrets":
                require_fields(step.input, {"mode"}, {"files", "value"})
                if len(step.input) != 2:
                    raise invalid("give either input.files or input.value")
                findings = await _call(ctx, _found, step.input)
                ctx.log.info("scanned for secrets", findings=len(findings))
                return {"clean": not findings, "findings": findings[:_MAX_FINDINGS]}
            case _:
                raise invalid("input.mode must be redact or scan_secrets")


async def _call(ctx: ArmContext, work: Callable[[dict[str, Any], Path], Result], given: dict[str, Any]) -> Result:
    """Do the work here if there is little of it.

    The rules are linear, at about a millisecond per 500 characters.
    """
    return work(given, ctx.rules_dir) if is_small(given) else await ctx.isolated(work, given, ctx.rules_dir)


def _redact(given: dict[str, Any], rules_dir: Path) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    return {"value": Redactor(rules_dir).clean(given["value"], counts), "redactions": dict(counts)}


def _found(given: dict[str, Any], rules_dir: Path) -> list[dict[str, Any]]:
    return list(_scan(given, rules_dir))


class Redactor:
    """Replaces personal data in JSON values.

    The reflex implements the same rules in Rust (`admission/redact.rs`).
    """

    def __init__(self, rules_dir: Path) -> None:
        self._rules = _pii(rules_dir)

    def clean(self, value: Any, counts: Counter[str]) -> Any:  # noqa: ANN401  any JSON value
        """Return `value` with every text and key redacted.

        Adds the number of replacements per type to `counts`.
        """
        if isinstance(value, str):
            return self.text(value, counts)
        if isinstance(value, list):
            return [self.clean(item, counts) for item in value]
        if isinstance(value, dict):
            clean: dict[str, Any] = {}
            numbers: dict[str, int] = {}
            for key, inner in value.items():
                cleaned = self.clean(inner, counts)
                clean[_unique_key(self.text(key, counts), clean, numbers)] = cleaned
            return clean
        return value

    def text(self, text: str, counts: Counter[str]) -> str:
        """Return `text` redacted by every rule. Adds the number of replacements per type to `counts`."""
        for kind, pattern, check, replacement in self._rules:

            def replace(found: re.Match[str], kind: str = kind, check: str = check, by: str = replacement) -> str:
                if not _stands_alone(found) or not _passes(check, found[0]):
                    return found[0]
                counts[kind] += 1
                return by

            text = pattern.sub(replace, text)
        return text


@cache
def _pii(rules_dir: Path) -> tuple[tuple[str, re.Pattern[str], str, str], ...]:
    rules = orjson.loads((rules_dir / "pii.json").read_bytes())["rules"]
    return tuple((rule["type"], re.compile(rule["pattern"]), rule["check"], rule["replacement"]) for rule in rules)


@cache
def _secrets(rules_dir: Path) -> tuple[tuple[str, re.Pattern[str]], ...]:
    rules = orjson.loads((rules_dir / "secrets.json").read_bytes())["rules"]
    return tuple((rule["name"], re.compile(rule["pattern"])) for rule in rules)


def _unique_key(key: str, taken: dict[str, Any], numbers: dict[str, int]) -> str:
    """Return `key`, with a number if redaction made it equal to an earlier key.

    `numbers`: the next number to try for each key, so that many equal keys do not take quadratic time.
    """
    if key not in taken:
        return key
    number = numbers.get(key, 2)
    while f"{key} {number}" in taken:
        number += 1
    numbers[key] = number + 1
    return f"{key} {number}"


def _stands_alone(found: re.Match[str]) -> bool:
    """Whether a match is not part of a longer name, number or decimal."""
    text, start, end = found.string, found.start(), found.end()
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if (before and _is_word_character(before[-1])) or (after and _is_word_character(after[0])):
        return False
    decimal_before = len(before) == 2 and before[1] == "." and before[0] in "0123456789"
    decimal_after = len(after) == 2 and after[0] == "." and after[1] in "0123456789"
    return not decimal_before and not decimal_after


def _is_word_character(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())


def _passes(check: str, text: str) -> bool:
    digits = [int(character) for character in text if character in "0123456789"]
    match check:
        case "luhn":
            doubled = (
                digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(digits[::-1])
            )
            return any(digits) and sum(doubled) % 10 == 0
        case "iban":
            plain = text.replace(" ", "")
            turned = "".join(_IBAN_DIGITS[character] for character in plain[4:] + plain[:4])
            return 15 <= len(plain) <= 34 and int(turned) % 97 == 1
        case "ssn":
            area, group, serial = text.split("-")
            return area not in {"000", "666"} and area[0] != "9" and group != "00" and serial != "0000"
        case "phone":
            return 8 <= len(digits) <= 15
        case "ipv4":
            return _is_ipv4(text)
    return True


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _scan(given: dict[str, Any], rules_dir: Path) -> Iterator[dict[str, Any]]:
    if "value" in given:
        texts = dict(_texts(given["value"], "value"))
    elif isinstance(given["files"], dict) and all(isinstance(text, str) for text in given["files"].values()):
        texts = given["files"]
    else:
        raise invalid("input.files must map file names to texts")
    for place, text in texts.items():
        for rule, pattern in _secrets(rules_dir):
            for found in pattern.finditer(text):
                yield {"rule": rule, "place": place[:200], "line": text.count("\n", 0, found.start()) + 1}


def _texts(value: Any, place: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401  any JSON value
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{place}.{number}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{place} key", key
            yield from _texts(item, f"{place}.{key}")
