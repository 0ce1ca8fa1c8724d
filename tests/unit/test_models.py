"""Choosing a model, prices, schemas and the server's own words, as functions."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from importlib import resources
from typing import get_args

import anthropic.types
import openai.types.shared
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octollm.errors import SettingsError
from octollm.models.choose import choose
from octollm.models.errors import retry_after, without_keys
from octollm.models.prices import cost_usd, default_model
from octollm.models.provider import Request, Tokens, Turn
from octollm.models.schemas import enforceable, enforced, value_of

WORD = {"type": "string"}
BOTH = {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "b"}


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name, value in BOTH.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("provider", "environment", "chosen"),
    [
        ("auto", BOTH, ("anthropic", "claude-sonnet-5-5")),
        ("auto", {"OPENAI_API_KEY": "b"}, ("openai", "gpt-6.2-sol")),
        ("auto", {"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": "b"}, ("openai", "gpt-6.2-sol")),
        ("auto", {}, None),
        ("none", BOTH, None),
        ("openai", BOTH, ("openai", "gpt-6.2-sol")),
        ("openai", {**BOTH, "OPENAI_BASE_URL": "https://eu.api.openai.com/v1"}, ("openai", "gpt-6.2-sol")),
    ],
)
def test_the_provider_follows_settings_and_keys(provider, environment, chosen):
    made = choose(provider, "", 100, 5, environment)
    assert (None if made is None else (made.name, made.model)) == chosen


def test_a_server_of_ones_own_speaks_chat_completions_and_has_no_default_model():
    own = {**BOTH, "OPENAI_BASE_URL": "http://localhost:11434/v1"}
    made = choose("openai", "qwen", 100, 5, own)
    assert made is not None
    assert (made.name, made.model) == ("compatible", "qwen")
    with pytest.raises(SettingsError, match=r"models\.model"):
        choose("openai", "", 100, 5, own)
    # Not a host that only looks like OpenAI's.
    fake = {**BOTH, "OPENAI_BASE_URL": "https://api.openai.com.example/v1"}
    made = choose("openai", "m", 100, 5, fake)
    assert made is not None
    assert made.name == "compatible"


@pytest.mark.parametrize(("provider", "key"), [("anthropic", "ANTHROPIC_API_KEY"), ("openai", "OPENAI_API_KEY")])
def test_a_provider_without_its_key_is_a_wrong_setting(provider, key):
    with pytest.raises(SettingsError, match=key):
        choose(provider, "", 100, 5, {})


def test_nothing_imports_an_sdk_before_its_provider_is_chosen():
    """They take longer to import than all the rest, and most processes never ask a model."""
    code = "import sys, octollm.runtime.worker; print(sorted({'anthropic', 'openai'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


def test_the_default_models_are_ones_the_sdks_list_and_have_a_price():
    known = {
        "anthropic": get_args(get_args(anthropic.types.Model)[0]),
        "openai": get_args(openai.types.shared.ChatModel),
    }
    for provider, names in known.items():
        model = default_model(provider)
        assert model is not None
        assert model in names
        assert cost_usd(provider, model, Tokens(1, 1)) is not None


def test_prices_say_where_and_when_they_were_read():
    file = orjson.loads((resources.files("octollm.models") / "prices.json").read_bytes())
    datetime.strptime(file["read_on"], "%Y-%m-%d").replace(tzinfo=UTC)
    for provider in file["providers"].values():
        assert provider["source"].startswith("https://")
        for prices in provider["models"].values():
            assert {"input", "output"} <= set(prices)
            assert all(Decimal(price) > 0 for price in prices.values())


def test_a_cost_is_exact_or_not_there():
    assert cost_usd("openai", "gpt-6.2-sol", Tokens(1, 0)) == Decimal("0.000002")
    # 70 * 2 + 30 * 0.1 + 10 * 2.5 + 9 * 10 dollars for a million.
    assert cost_usd("openai", "gpt-6.2-sol", Tokens(70, 9, 30, 10)) == Decimal("0.000258")
    assert cost_usd("openai", "gpt-6.2-sol", Tokens(0, 0)) == 0
    assert cost_usd("openai", "gpt-6.2-sol", None) is None
    assert cost_usd("openai", "gpt-nobody", Tokens(1, 1)) is None
    assert cost_usd("compatible", "gpt-6.2-sol", Tokens(1, 1)) is None
    # What this provider charges for reading its cache is not in the file.
    assert cost_usd("anthropic", "claude-sonnet-5-5", Tokens(1, 1, cache_read=1)) is None
    # Above this length the provider charges more.
    assert cost_usd("openai", "gpt-6.2-sol", Tokens(272_000, 1)) is not None
    assert cost_usd("openai", "gpt-6.2-sol", Tokens(272_000, 1, cache_read=1)) is None


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 271_000))
def test_a_cost_is_the_sum_of_its_parts(output, written, read):
    whole = cost_usd("anthropic", "claude-opus-5", Tokens(5, output, read, written))
    parts = [Tokens(5, 0), Tokens(0, output), Tokens(0, 0, read), Tokens(0, 0, 0, written)]
    assert whole == sum(cost_usd("anthropic", "claude-opus-5", part) or 0 for part in parts)


def closed(**properties):
    return {"type": "object", "additionalProperties": False, "required": [*properties], "properties": properties}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (closed(a=WORD, b={"type": "array", "items": closed(c={"enum": [1, "x"]})}), True),
        (closed(a={"anyOf": [WORD, {"type": "null"}]}), True),
        ({**closed(a=WORD), "additionalProperties": WORD}, False),
        ({**closed(a=WORD), "required": []}, False),
        ({"type": "object", "properties": {}, "required": []}, False),
        (closed(a={}), False),
        (closed(a={"type": ["string", "null"]}), False),
        (closed(a={"type": "array"}), False),
        (closed(a={"anyOf": [WORD, {"type": "object"}]}), False),
        (closed(a={"$ref": "#/x"}), False),
        (closed(a={"oneOf": [WORD]}), False),
    ],
)
def test_only_schemas_that_providers_enforce_are_sent_as_such(schema, expected):
    assert enforceable(schema) is expected


def test_what_providers_do_not_take_is_left_out_but_no_property_is():
    schema = closed(pattern={**WORD, "pattern": "a", "minLength": 1}, items={"type": "array", "items": WORD})
    assert enforced(schema) == closed(pattern=WORD, items={"type": "array", "items": WORD})


@pytest.mark.parametrize(
    "text",
    ['{"a": "x"}', ' \n{"a": "x"}\n', '```json\n{"a": "x"}\n```', 'Here it is: {"a": "x"} I hope it helps.'],
)
def test_json_is_found_in_what_models_wrap_around_it(text):
    assert value_of(text, closed(a=WORD)) == ({"a": "x"}, None)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no JSON"),
        ("I cannot do that", "no JSON"),
        ('{"a": "x"', "no JSON"),
        ('{"a": NaN}', "no JSON"),
        ('{"a": "x", "a": "y"}', "same key twice"),
        ('{"a": "\\u0000"}', "NUL"),
        ('{"a": "\ud800"}', "UTF-8"),
        ("[" * 100 + "]" * 100, "nesting"),
        ('{"a": 5}', "- a:"),
        ("{}", "the whole answer"),
    ],
)
def test_an_unusable_answer_is_refused_with_the_reason(text, part):
    assert part in (value_of(text, closed(a=WORD))[1] or "")


@given(st.text())
def test_no_answer_breaks_the_reading_of_answers(text):
    value_of(text, closed(a=WORD))


def test_the_same_is_asked_only_when_all_of_it_is_the_same():
    asked = [
        Request("s", "p", None),
        Request("s", "p", closed(a=WORD)),
        Request("s", "p", closed(a=WORD), (Turn("x", "y"),)),
        Request("s", "p", closed(a=WORD), (Turn("x", "y"), Turn("x", "y"))),
        Request("sp", "", None),
    ]
    assert len({one.sha256 for one in asked}) == len(asked)
    assert Request("s", "p", {"a": 1, "b": 2}).sha256 == Request("s", "p", {"b": 2, "a": 1}).sha256


def test_retry_after_is_read_in_all_its_forms():
    assert retry_after({"retry-after": "2.5"}) == 2.5
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after": "-3"}) == 0
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "inf"}, {"retry-after": "nan"}, {"retry-after": ""}):
        assert retry_after(nothing) is None
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert 3500 < (retry_after({"retry-after": later}) or 0) <= 3600


@pytest.mark.parametrize("hours", [-5, -1, 0, 1, 400])
def test_a_date_in_retry_after_counts_from_the_servers_own_clock(hours: int):
    now = datetime.now(UTC) + timedelta(hours=hours)
    wanted = {"retry-after": format_datetime(now + timedelta(seconds=90)), "date": format_datetime(now)}
    assert retry_after(wanted) == 90
    assert retry_after({**wanted, "retry-after": format_datetime(now - timedelta(seconds=5))}) == 0
    # A date that cannot be read is none.
    unreadable = {"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=90)), "date": "soon"}
    assert 80 < (retry_after(unreadable) or 0) <= 90


@pytest.mark.parametrize(
    "text",
    ["Incorrect API key provided: sk-proj-abcdefgh12345", "Authorization: Bearer abc.def", "key sk-ant-api03-abcdefg"],
)
def test_what_a_server_says_never_shows_a_key(text):
    shown = without_keys(text)
    assert "(key)" in shown
    assert "abc" not in shown
    assert len(without_keys("long " * 1000)) <= 300
