"""Guardian and judge: every mode and every check, on inputs it accepts and on inputs it refuses."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from octollm.arms.base import Arm, ArmContext
from octollm.arms.guardian import Guardian, Redactor
from octollm.arms.judge import Judge
from octollm.contracts import StepRequested
from octollm.errors import PermanentError
from octollm.ports import Isolation
from octollm.resources import rules_path

CSV = "g,n,note\na,1,x\na,3,x\nb,5,y\nb,NA,y\n"
CASES = orjson.loads((rules_path() / "cases.json").read_bytes())


async def handle(
    arm: Arm, value: dict[str, Any], rules: Path | None = None, isolation: Isolation | None = None
) -> dict[str, Any]:
    step = StepRequested(
        task="l0-01jd0000000000000000000000",
        run=1,
        step="s",
        round=0,
        attempt=1,
        tenant="default",
        arm="x",
        priority="normal",
        failures=0,
        input=value,
        timeout_s=5,
    )
    return await arm.handle(step, ArmContext(structlog.get_logger(), "w", rules or rules_path(), isolation=isolation))


@pytest.mark.parametrize("case", CASES["pii"], ids=lambda case: case["text"][:40])
def test_redaction_does_what_the_shared_cases_say(case):
    counts: Counter[str] = Counter()
    assert Redactor(rules_path()).text(case["text"], counts) == case["redacted"]
    assert dict(counts) == case["counts"]


async def test_redaction_reaches_every_text_and_loses_no_key():
    value = {"a@b.example": ["c@d.example", 5, None], "e@f.example": {"x": True}}
    answer = await handle(Guardian(), {"mode": "redact", "value": value})
    assert answer == {
        "value": {"[email]": ["[email]", 5, None], "[email] 2": {"x": True}},
        "redactions": {"email": 3},
    }


# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "private_key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "aws_access_key": "AKIA" + "A1B2C3D4" * 2,
    "github_token": "ghp_" + "a1B2" * 9,
    "slack_token": "xoxb-" + "123456789012",
    "model_api_key": "sk-ant-" + "a1B2" * 10,
    "google_api_key": "AIza" + "a1B2C" * 7,
    "stripe_key": "sk_live_" + "a1B2" * 6,
    "json_web_token": "eyJ" + "a" * 12 + ".eyJ" + "b" * 12 + "." + "c" * 12,
    "password_in_url": "postgres://user:" + "hunter22@db",
    "assigned_secret": "api_key = '" + "a1B2" * 5 + "'",
}


@pytest.mark.parametrize("rule", SECRETS)
async def test_a_secret_is_found_and_not_repeated(rule):
    answer = await handle(Guardian(), {"mode": "scan_secrets", "files": {"a.py": f"# one\nx = 1 {SECRETS[rule]} \n"}})
    assert {"rule": rule, "place": "a.py", "line": 2} in answer["findings"]
    assert answer["clean"] is False
    assert SECRETS[rule] not in str(answer)


async def test_every_secret_rule_has_its_case_here():
    rules = orjson.loads((rules_path() / "secrets.json").read_bytes())["rules"]
    assert {rule["name"] for rule in rules} == set(SECRETS)


async def test_ordinary_text_is_clean():
    text = "password = read_password()\nurl = 'https://example.org/a:b@c'\nsk-short AKIA1234 api_key: str"
    assert await handle(Guardian(), {"mode": "scan_secrets", "value": {"k": [text]}}) == {"clean": True, "findings": []}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"mode": "shred"},
        {"mode": "redact"},
        {"mode": "redact", "value": 1, "extra": 2},
        {"mode": "scan_secrets"},
        {"mode": "scan_secrets", "files": {}, "value": 1},
        {"mode": "scan_secrets", "files": {"a": 5}},
    ],
)
async def test_the_guardian_refuses_what_it_does_not_know(value):
    with pytest.raises(PermanentError) as caught:
        await handle(Guardian(), value)
    assert caught.value.code == "invalid_input"


RAN = {"exit_code": 1, "outcome": "failed", "stderr": "Traceback\nAssertionError: 1 != 2\n", "stdout": ""}
PLACE = {"collection": "c", "document": "d", "start": 3, "end": 6, "first_line": 1, "last_line": 1}
STORED = {**PLACE, "text": "Yes"}
ANSWER = {"answer": "Yes [1]", "citations": [{"n": 1, "quote": "Yes", **PLACE}]}
CHECKS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"check": "exit_code", "of": {"exit_code": 0}}, {"of": RAN}, "exit code 1, expected 0; last line: AssertionError"),
    ({"check": "outcome", "of": {"outcome": "ok"}}, {"of": RAN}, "outcome failed, expected ok"),
    ({"check": "contains", "text": "abc", "part": "b"}, {"part": "z"}, "does not contain 'z'"),
    ({"check": "lacks", "text": "abc", "part": "z"}, {"part": "b"}, "contains 'b'"),
    ({"check": "matches", "text": "abc", "pattern": "^a.c$"}, {"text": "abd"}, "nothing matches"),
    ({"check": "equals", "value": [1], "expected": [1]}, {"value": [2]}, "not what was expected"),
    ({"check": "clean", "of": {"clean": True}}, {"of": {"clean": False, "findings": [{"rule": "r"}]}}, "not clean: r"),
    ({"check": "schema", "value": 1, "schema": {"type": "integer"}}, {"value": "1"}, "breaks the rule type"),
    ({"check": "citations", "of": ANSWER, "sources": {"texts": [STORED]}}, {"sources": {"texts": []}}, "was not read"),
    ({"check": "numeric", "value": 0.3, "expected": 0.1 + 0.2}, {"value": 0.31}, "0.31 is not"),
    ({"check": "numeric", "value": 5, "min": 1, "max": 9}, {"value": 0}, "0 is below 1"),
    ({"check": "numeric", "value": 5, "min": 1, "max": 9}, {"value": 10}, "10 is above 9"),
    ({"check": "numeric", "value": 5, "expected": 6, "tolerance": 1}, {"value": "5"}, "is not a number"),
    (
        {"check": "recompute", "csv": CSV, "column": "n", "by": "g", "statistic": "mean", "expected": {"a": 2, "b": 5}},
        {"expected": {"a": 2, "b": 5.1}},
        "mean of n of b is 5, not 5.1",
    ),
    (
        {"check": "recompute", "csv": CSV, "column": "n", "statistic": "sum", "where": {"g": "a"}, "expected": 4},
        {"expected": 9},
        "sum of n is 4",
    ),
    (
        {"check": "recompute", "csv": CSV, "column": "n", "by": "g", "statistic": "max", "expected": {"a": 3, "b": 5}},
        {"expected": {"a": 3}},
        "the groups are",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("good", "change", "reason"), CHECKS)
async def test_each_check_passes_and_fails(good, change, reason):
    answer = await handle(Judge(), {"checks": [good]})
    assert answer["verdict"] == "pass", answer
    assert answer["reasons"] == []
    answer = await handle(Judge(), {"checks": [good, {**good, **change, "name": "mine"}]})
    assert answer["verdict"] == "fail"
    assert [check["passed"] for check in answer["checks"]] == [True, False]
    (said,) = answer["reasons"]
    assert said.startswith("mine: ")
    assert reason in said


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
async def test_every_kind_of_line_end_is_read(end):
    check = {"check": "recompute", "csv": end.join(["g,v", "a,1", "b,2", ""]), "column": "v", "by": "g"}
    answer = await handle(Judge(), {"checks": [{**check, "statistic": "sum", "expected": {"a": 1, "b": 2}}]})
    assert answer["verdict"] == "pass"


@pytest.mark.parametrize("text", ['g,v\n"a' + "x" * 200_000 + '",1', "v,g\n1\n2,b", "g,v\na,1e308\na,1e308"])
async def test_odd_data_get_a_verdict_or_are_refused(text):
    check = {"check": "recompute", "csv": text, "column": "v", "by": "g", "statistic": "sum", "expected": {"a": 1}}
    try:
        answer = await handle(Judge(), {"checks": [check]})
    except PermanentError as error:
        assert error.code == "invalid_input"
    else:
        assert answer["verdict"] == "fail"


async def test_no_pattern_takes_more_than_linear_time():
    check = {"check": "matches", "text": "a" * 50_000 + "!", "pattern": "(a+)+$"}
    began = time.process_time()
    answer = await handle(Judge(), {"checks": [check]})
    assert answer["verdict"] == "fail"
    assert time.process_time() - began < 1


async def test_a_pattern_whose_repetitions_multiply_is_refused():
    check = {"check": "matches", "text": "a" * 10, "pattern": "(a?){1000}" * 100 + "c"}
    with pytest.raises(PermanentError, match="pattern too large"):
        await handle(Judge(), {"checks": [check]})


@pytest.mark.parametrize(
    ("check", "leaves"),
    [
        ({"check": "matches", "text": "a", "pattern": "a"}, True),
        ({"check": "schema", "value": "a", "schema": {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}}, True),
        ({"check": "schema", "value": "a", "schema": {"allOf": [{"type": "string"}]}}, True),
        ({"check": "schema", "value": {}, "schema": {"properties": {"a": {"items": {"pattern": "a"}}}}}, True),
        ({"check": "schema", "value": {}, "schema": {"additionalProperties": {"anyOf": [True]}}}, True),
        ({"check": "schema", "value": "a", "schema": {"type": "string", "minLength": 1}}, False),
        ({"check": "schema", "value": {"$ref": 1}, "schema": {"properties": {"$ref": {"type": "integer"}}}}, False),
    ],
)
async def test_small_checks_leave_the_event_loop_only_if_they_may_take_long(check, leaves):
    called = []

    class Recorded:
        async def run(self, function, *args):
            called.append(function)
            return function(*args)

    answer = await handle(Judge(), {"checks": [check]}, isolation=Recorded())
    assert answer["verdict"] == "pass"
    assert bool(called) is leaves


async def test_every_check_has_its_case_here():
    with pytest.raises(PermanentError) as caught:
        await handle(Judge(), {"checks": [{"check": "?"}]})
    known = set(caught.value.message.partition("one of ")[2].split(", "))
    assert known == {good["check"] for good, _, _ in CHECKS}


@pytest.mark.parametrize(
    "checks",
    [
        None,
        [],
        ["exit_code"],
        [{"check": "contains", "text": "a"}],
        [{"check": "citations", "of": ANSWER, "sources": {}}],
        [{"check": "citations", "of": {**ANSWER, "citations": ["x"]}, "sources": {"texts": []}}],
        [{"check": "contains", "text": "a", "part": 5}],
        [{"check": "contains", "text": "a", "part": "b", "colour": "red"}],
        [{"check": "contains", "text": "a", "part": "b", "name": 5}],
        [{"check": "matches", "text": "a", "pattern": "("}],
        [{"check": "matches", "text": "a", "pattern": "(?=a)"}],
        [{"check": "schema", "value": 1, "schema": {"type": "nothing"}}],
        [{"check": "schema", "value": 1, "schema": {"$ref": "http://127.0.0.1:9/latest/meta-data"}}],
        [{"check": "numeric", "value": 1}],
        [{"check": "numeric", "value": 1, "min": True}],
        [{"check": "recompute", "csv": CSV, "column": "zzz", "statistic": "sum", "expected": 1}],
        [{"check": "recompute", "csv": CSV, "column": "n", "statistic": "mode", "expected": 1}],
    ],
)
async def test_the_judge_refuses_what_it_does_not_know(checks):
    with pytest.raises(PermanentError) as caught:
        await handle(Judge(), {"checks": checks})
    assert caught.value.code == "invalid_input"
