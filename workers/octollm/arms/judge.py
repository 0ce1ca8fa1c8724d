"""The judge: checks the output of other steps without a model, and returns a verdict with reasons.

Input `{"checks": [{"check": <name>, ...}, ...]}` gives `{"verdict": "pass" | "fail", "reasons", "checks"}`. Every check
runs, even after one has failed. A step with the verdict "fail" has succeeded; only invalid input is an error.

Checks (`name`: optional label for the reason):
- `exit_code` {of: executor output, equals: 0}      - `outcome` {of: executor output, equals: "ok"}
- `contains` / `lacks` {text, part}                 - `matches` {text, pattern: of RE2, so that it takes linear time}
- `equals` {value, expected}                        - `clean` {of: guardian output}
- `schema` {value, schema}                          - `numeric` {value, expected, tolerance?, min?, max?}
- `citations` {of: retriever answer, sources: retriever read}: every quote is in the stored text at its place and on its
  lines, and the answer consists of quotes
- `recompute` {csv, column, statistic, by?, where?, expected, tolerance?}: computes the numbers again from the data
"""

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import re2

from octollm.arms.base import ArmContext, invalid, is_small, require_fields
from octollm.contracts import StepRequested
from octollm.contracts.json_schema import validator
from octollm.errors import SchemaError
from octollm.text import citations

_TOLERANCE = 1e-9
"""Relative tolerance; covers the rounding differences of another order of addition."""
_MAX_SHOWN = 200
_RE2_OPTIONS = re2.Options()
_RE2_OPTIONS.log_errors = False
_RE2_OPTIONS.max_mem = 1 << 20  # bounds a pattern: repetitions multiply, and each character of the text costs as much
_LINEAR_KEYWORDS = frozenset(
    {
        "type", "properties", "required", "additionalProperties", "items", "title", "description",
        "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum",
    }
)  # fmt: skip
Fault = str | None


class Judge:
    """Arm `judge`."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """Return the output described in the module. Raises PermanentError for invalid input."""
        require_fields(step.input, {"checks"}, set())
        checks = step.input["checks"]
        if not isinstance(checks, list) or not checks:
            raise invalid("input.checks must be a list of at least one check")
        direct = is_small(checks) and not any(_is_unbounded(check) for check in checks)
        results = _all(checks) if direct else await ctx.isolated(_all, checks)
        reasons = [result["reason"] for result in results if not result["passed"]]
        ctx.log.info("made a verdict", checks=len(results), failed=len(reasons))
        return {"verdict": "fail" if reasons else "pass", "reasons": reasons, "checks": results}


def _is_unbounded(check: Any) -> bool:  # noqa: ANN401  any JSON value
    """Whether a small check may take long all the same.

    A schema can refer to itself in many ways. A short pattern with repetitions takes milliseconds per character.
    """
    if not isinstance(check, dict):
        return False
    return check.get("check") == "matches" or (check.get("check") == "schema" and not _is_linear(check.get("schema")))


def _is_linear(schema: Any) -> bool:  # noqa: ANN401  any JSON value
    """Whether validating with a schema looks at each part of a value once.

    Most schemas do. Their checks need no process, and so do not wait while hostile ones keep all processes busy.
    """
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict) or not _LINEAR_KEYWORDS.issuperset(schema):
        return False
    properties = schema.get("properties", {})
    inner = (schema.get("items", True), schema.get("additionalProperties", True))
    return isinstance(properties, dict) and all(_is_linear(one) for one in (*properties.values(), *inner))


def _all(checks: list[Any]) -> list[dict[str, Any]]:
    return [_one(check, f"input.checks.{number}") for number, check in enumerate(checks)]


def _one(check: Any, place: str) -> dict[str, Any]:  # noqa: ANN401  any JSON value
    name = check.get("check") if isinstance(check, dict) else None
    if not isinstance(name, str) or name not in _CHECKS:
        raise invalid(f"{place}.check must be one of {', '.join(_CHECKS)}")
    run, required, optional = _CHECKS[name]
    require_fields(check, {"check", *required}, {"name", *optional}, place)
    label = check.get("name", name)
    if not isinstance(label, str):
        raise invalid(f"{place}.name must be text")
    fault = run(check, place)
    result = {"check": name, "name": label, "passed": fault is None}
    return result if fault is None else {**result, "reason": f"{label}: {fault}"}


def _field(check: Mapping[str, Any], field: str, kind: type | tuple[type, ...], place: str) -> Any:  # noqa: ANN401
    value = check[field]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = kind.__name__ if isinstance(kind, type) else " or ".join(one.__name__ for one in kind)
        raise invalid(f"{place}.{field} must be {names}")
    return value


def _exit_code(check: Mapping[str, Any], place: str) -> Fault:
    found, wanted = _field(check, "of", dict, place).get("exit_code"), check.get("equals", 0)
    if found == wanted:
        return None
    ran = check["of"]
    said = str(ran.get("stderr") or ran.get("stdout") or "").strip().splitlines()
    last = f"; last line: {said[-1][:_MAX_SHOWN]}" if said else ""
    code = f"exit code {found}" if found is not None else f"no exit code ({ran.get('outcome')})"
    return f"{code}, expected {wanted}{last}"


def _outcome(check: Mapping[str, Any], place: str) -> Fault:
    found, wanted = _field(check, "of", dict, place).get("outcome"), check.get("equals", "ok")
    return None if found == wanted else f"outcome {found}, expected {wanted}"


def _contains(check: Mapping[str, Any], place: str) -> Fault:
    text, part = _field(check, "text", str, place), _field(check, "part", str, place)
    return None if part in text else f"does not contain {part[:_MAX_SHOWN]!r}"


def _lacks(check: Mapping[str, Any], place: str) -> Fault:
    text, part = _field(check, "text", str, place), _field(check, "part", str, place)
    return None if part not in text else f"contains {part[:_MAX_SHOWN]!r}"


def _matches(check: Mapping[str, Any], place: str) -> Fault:
    text, pattern = _field(check, "text", str, place), _field(check, "pattern", str, place)
    try:
        found = re2.compile(pattern, _RE2_OPTIONS).search(text)
    except re2.error as error:
        raise invalid(f"{place}.pattern is not a regular expression of RE2: {_message(error)}") from error
    return None if found else f"nothing matches {pattern[:_MAX_SHOWN]!r}"


def _message(error: re2.error) -> str:
    found = error.args[0] if error.args else ""
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


def _equals(check: Mapping[str, Any], _place: str) -> Fault:
    return None if check["value"] == check["expected"] else "is not what was expected"


def _clean(check: Mapping[str, Any], place: str) -> Fault:
    found = _field(check, "of", dict, place)
    if found.get("clean") is True:
        return None
    rules = sorted({str(one.get("rule")) for one in found.get("findings", []) if isinstance(one, dict)})
    return f"not clean: {', '.join(rules) or 'the guardian did not report it as clean'}"


def _schema(check: Mapping[str, Any], place: str) -> Fault:
    try:
        broken = next(validator(_field(check, "schema", dict, place)).iter_errors(check["value"]), None)
    except SchemaError as error:
        raise invalid(f"{place}.schema is not a JSON Schema: {error.message}") from error
    if broken is None:
        return None
    where = ".".join(str(part) for part in broken.instance_path) or "the value"
    return f"{where} breaks the rule {'.'.join(str(part) for part in broken.schema_path)}"


def _citations(check: Mapping[str, Any], place: str) -> Fault:
    answer, sources = _field(check, "of", dict, place), _field(check, "sources", dict, place)
    text, given, texts = answer.get("answer"), answer.get("citations"), sources.get("texts")
    if not isinstance(text, str) or not _objects(given):
        raise invalid(f"{place}.of must be the output of the retriever's mode answer")
    if not _objects(texts):
        raise invalid(f"{place}.sources must be the output of the retriever's mode read")
    faults = citations.faults(text, given, texts)
    if not faults:
        return None
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{faults[0]}{more}"


def _objects(value: Any) -> bool:  # noqa: ANN401  any JSON value
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _numeric(check: Mapping[str, Any], place: str) -> Fault:
    value = check["value"]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "is not a number"
    if not {"expected", "min", "max"} & set(check):
        raise invalid(f"{place}: give expected, min or max")
    if "min" in check and value < _field(check, "min", (int, float), place):
        return f"{value} is below {check['min']}"
    if "max" in check and value > _field(check, "max", (int, float), place):
        return f"{value} is above {check['max']}"
    if "expected" in check and not _near(value, _field(check, "expected", (int, float), place), check, place):
        return f"{value} is not {check['expected']}"
    return None


def _near(value: float, expected: float, check: Mapping[str, Any], place: str) -> bool:
    if "tolerance" not in check:
        return math.isclose(value, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return abs(value - expected) <= float(_field(check, "tolerance", (int, float), place))


_STATISTICS: Mapping[str, Callable[[list[float]], float]] = {
    "count": lambda values: float(len(values)),
    "sum": math.fsum,
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
}


def _recompute(check: Mapping[str, Any], place: str) -> Fault:
    column, statistic = _field(check, "column", str, place), _field(check, "statistic", str, place)
    if statistic not in _STATISTICS:
        raise invalid(f"{place}.statistic must be one of {', '.join(_STATISTICS)}")
    by = _field(check, "by", str, place) if "by" in check else None
    where = _field(check, "where", dict, place) if "where" in check else {}
    try:
        groups = _groups(_field(check, "csv", str, place), column, by, where, place)
    except csv.Error as error:
        raise invalid(f"{place}.csv cannot be read as CSV: {error}") from error
    try:
        found = {name: _STATISTICS[statistic](values) for name, values in groups.items()}
    except OverflowError:
        return f"{statistic} of {column} is beyond the range of a number"
    expected = _field(check, "expected", dict, place) if by else {"": _field(check, "expected", (int, float), place)}
    if set(expected) != set(found):
        return f"the groups are {sorted(found)}, not {sorted(expected)}"
    for name, value in sorted(found.items()):
        given = expected[name]
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not _near(given, value, check, place):
            of = f" of {name}" if name else ""
            return f"{statistic} of {column}{of} is {value:g}, not {given!r}"
    return None


def _groups(text: str, column: str, by: str | None, where: Mapping[str, Any], place: str) -> dict[str, list[float]]:
    """Return the numbers of a column by the value of column `by` ('' without it).

    Raises csv.Error, PermanentError.
    """
    # newline=None: spreadsheets also end lines with CR alone, which the module csv refuses.
    reader = csv.DictReader(io.StringIO(text, newline=None))
    for name in filter(None, (column, by, *where)):
        if name not in (reader.fieldnames or ()):
            raise invalid(f"{place}: the data have no column {name!r}")
    groups: dict[str, list[float]] = {}
    for row in reader:
        if any(row[name] != value for name, value in where.items()):
            continue
        value = _number(row[column])
        if value is not None:
            groups.setdefault((row[by] or "") if by else "", []).append(value)
    return groups


def _number(text: str | None) -> float | None:
    """Return the number in a cell, or None for a missing value, which is ignored."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


_CHECKS: Mapping[str, tuple[Callable[[Mapping[str, Any], str], Fault], set[str], set[str]]] = {
    "exit_code": (_exit_code, {"of"}, {"equals"}),
    "outcome": (_outcome, {"of"}, {"equals"}),
    "contains": (_contains, {"text", "part"}, set()),
    "lacks": (_lacks, {"text", "part"}, set()),
    "matches": (_matches, {"text", "pattern"}, set()),
    "equals": (_equals, {"value", "expected"}, set()),
    "clean": (_clean, {"of"}, set()),
    "schema": (_schema, {"value", "schema"}, set()),
    "citations": (_citations, {"of", "sources"}, set()),
    "numeric": (_numeric, {"value"}, {"expected", "tolerance", "min", "max"}),
    "recompute": (_recompute, {"csv", "column", "statistic", "expected"}, {"by", "where", "tolerance"}),
}
