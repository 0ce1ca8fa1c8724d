"""The real SDKs against scripted servers on a real socket: every way in which an answer can come, or not come."""

import asyncio
import logging
from typing import Any, Literal

import pytest

from octollm.errors import NEEDS_PERSON, NeedsPersonError, PermanentError, TransientError
from octollm.models.choose import choose
from octollm.models.provider import Provider, Request, Tokens, Turn
from tests.helpers.mock_models import Break, MockModels, Refuse, Say

KEY = "sk-test-" + "q" * 24
CLOSED = {
    "type": "object",
    "additionalProperties": False,
    "required": ["word"],
    "properties": {"word": {"type": "string", "minLength": 2}},
}
OPEN = {"type": "object", "additionalProperties": {"type": "string"}}
NAMES = ["anthropic", "openai", "compatible"]


@pytest.fixture
async def models():
    async with MockModels() as server:
        yield server


@pytest.fixture
async def made(models, monkeypatch):
    """Makes a provider whose SDK talks to the scripted server."""
    alive = []
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", models.url)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{models.url}/v1")

    def make(name: str) -> Provider:
        which: Literal["anthropic", "openai"] = "anthropic" if name == "anthropic" else "openai"
        # Which protocol it is, is decided by the URL; the SDK goes where the environment says all the same.
        url = f"{models.url}/v1" if name == "compatible" else "https://api.openai.com/v1"
        keys = {"ANTHROPIC_API_KEY": KEY, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": url}
        provider = choose(which, "some-model", 512, 30, keys)
        assert provider is not None
        assert provider.name == name
        alive.append(provider)
        return provider

    yield make
    for provider in alive:
        await provider.close()


def request(schema: dict[str, Any] | None = None, *turns: Turn) -> Request:
    return Request("You are terse.", "Say a word.", schema, turns)


@pytest.mark.parametrize("name", NAMES)
async def test_a_streamed_answer_is_put_together_and_its_tokens_are_counted_once(models, made, name):
    models.script(Say("Brevité 🐙 done", input=100, output=9, read=30))
    answer = await made(name).answer(request())
    # Anthropic counts cached tokens next to the input, OpenAI inside it.
    assert answer.tokens == Tokens(100 if name == "anthropic" else 70, 9, 30, 0)
    assert (answer.text, answer.stop, answer.model) == ("Brevité 🐙 done", "end", "some-model")
    (asked,) = models.requests
    assert asked.body["stream"] is True
    assert KEY in asked.headers["authorization"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("stop", "expected"), [("max_tokens", "max_tokens"), ("refusal", "refusal")])
async def test_an_answer_that_stopped_early_says_why(models, made, name, stop, expected):
    models.script(Say("Half a sen", stop=stop))
    answer = await made(name).answer(request())
    assert answer.stop == expected
    assert answer.tokens is not None


@pytest.mark.parametrize(("stop", "expected"), [("pause", "other"), ("context", "context")])
async def test_anthropics_own_ways_to_stop(models, made, stop, expected):
    models.script(Say("Wait", stop=stop))
    assert (await made("anthropic").answer(request())).stop == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("refusal", "code", "wait_s"),
    [
        (Refuse(429, "rate_limit_error", headers={"retry-after": "17"}), "model_rate_limited", 17),
        (Refuse(429, "rate_limit_error", headers={"retry-after-ms": "250"}), "model_rate_limited", 0.25),
        (Refuse(429, "rate_limit_error"), "model_rate_limited", None),
        (Refuse(529, "overloaded_error"), "model_unavailable", None),
        (Refuse(503, headers={"retry-after": "soon"}), "model_unavailable", None),
    ],
    ids=["seconds", "milliseconds", "silent", "overloaded", "nonsense"],
)
async def test_a_refusal_that_will_pass_is_asked_once_and_says_when_to_come_back(
    models, made, name, refusal, code, wait_s
):
    models.script(refusal)
    with pytest.raises(TransientError) as caught:
        await made(name).answer(request())
    assert (caught.value.code, caught.value.retry_after_s) == (code, wait_s)
    assert len(models.requests) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refuse(401, "authentication_error", f"Incorrect API key provided: {KEY}"), "needs_person_model_refused_key"),
        (Refuse(403, "permission_error", KEY), "needs_person_model_refused_key"),
        (Refuse(404, "not_found_error"), "needs_person_model_unknown"),
        (Refuse(402, "billing_error"), "needs_person_model_no_credit"),
        (Refuse(429, "insufficient_quota"), "needs_person_model_no_credit"),
        (Refuse(413, "request_too_large"), "model_input_too_long"),
        (Refuse(400, "invalid_request_error", f"max_tokens is wrong, says {KEY}"), "model_bad_request"),
    ],
    ids=["key", "rights", "model", "billing", "quota", "long", "request"],
)
async def test_a_refusal_for_good_is_one_of_two_classes_and_never_shows_the_key(models, made, name, refusal, code):
    models.script(refusal)
    with pytest.raises(NeedsPersonError if code.startswith(NEEDS_PERSON) else PermanentError) as caught:
        await made(name).answer(request())
    assert caught.value.code == code
    assert KEY not in caught.value.message
    if code == "needs_person_model_refused_key":
        assert ("ANTHROPIC_API_KEY" if name == "anthropic" else "OPENAI_API_KEY") in caught.value.message


@pytest.mark.parametrize(
    ("name", "how", "code"),
    [
        *((name, "overloaded", "model_unavailable") for name in NAMES),
        ("openai", "failed", "model_unavailable"),
        *((name, "truncated_json", "model_stream_broken") for name in NAMES),
        *((name, "ends_early", "model_stream_broken") for name in NAMES),
    ],
)
async def test_an_answer_that_goes_wrong_after_status_200_is_transient_and_not_asked_again(
    models, made, name, how, code
):
    models.script(Break(how))
    with pytest.raises(TransientError) as caught:
        await made(name).answer(request())
    assert caught.value.code == code
    assert len(models.requests) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_a_connection_cut_in_the_middle_is_transient(models, made, name):
    models.script(Break("cut"))
    with pytest.raises(TransientError):
        await made(name).answer(request())
    assert len(models.requests) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_a_server_that_is_not_there_is_transient(models, made, name):
    provider = made(name)
    models._server.close()
    await models._server.wait_closed()
    with pytest.raises(TransientError) as caught:
        await provider.answer(request())
    assert caught.value.code == "model_unreachable"


@pytest.mark.parametrize("name", NAMES)
async def test_a_cancelled_call_closes_its_socket_at_once(models, made, name):
    models.script(Break("stall"))
    call = asyncio.create_task(made(name).answer(request()))
    async with asyncio.timeout(60):
        while not models.requests:
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    async with asyncio.timeout(60):
        await models.hung_up.wait()


async def test_a_schema_is_enforced_where_it_can_be_and_described_in_words_elsewhere(models, made):
    models.script(*(Say('{"word": "yes"}') for _ in range(4)))
    for name in ("anthropic", "openai"):
        provider = made(name)
        await provider.answer(request(CLOSED))
        await provider.answer(request(OPEN))
    a_closed, a_open, o_closed, o_open = (asked.body for asked in models.requests)
    schema = a_closed["output_config"]["format"]["schema"]
    assert (schema["required"], schema["additionalProperties"]) == (["word"], False)
    assert "minLength" not in schema["properties"]["word"]
    assert "output_config" not in a_open
    assert '"additionalProperties":{"type":"string"}' in a_open["system"]
    assert o_closed["text"]["format"]["strict"] is True
    assert o_closed["text"]["format"]["schema"]["properties"] == {"word": {"type": "string"}}
    assert o_open["text"]["format"] == {"type": "json_object"}
    assert '"additionalProperties":{"type":"string"}' in o_open["instructions"]


def forms(models: MockModels) -> list[str]:
    return [asked.body.get("response_format", {"type": "text"})["type"] for asked in models.requests]


async def test_a_compatible_server_is_asked_down_the_ladder_once_and_its_answer_is_kept(models, made):
    no = Refuse(400, "invalid_request_error", "response_format is not supported")
    models.script(no, no, Say("{}"), Say("{}"))
    provider = made("compatible")
    await provider.answer(request(CLOSED))
    await provider.answer(request(CLOSED))
    assert forms(models) == ["json_schema", "json_object", "text", "text"]
    assert "JSON Schema" not in models.requests[0].body["messages"][0]["content"]
    assert "JSON Schema" in models.requests[3].body["messages"][0]["content"]


async def test_a_compatible_server_that_refuses_every_form_is_asked_again(models, made):
    no = Refuse(400, "invalid_request_error", "the messages are too odd")
    models.script(no, no, no, Say("{}"))
    provider = made("compatible")
    with pytest.raises(PermanentError, match="too odd"):
        await provider.answer(request(CLOSED))
    await provider.answer(request(CLOSED))
    assert forms(models) == ["json_schema", "json_object", "text", "json_schema"]


async def test_a_compatible_server_that_ignores_schemas_gets_them_in_words(models, made):
    models.script(Say("no JSON"), Say('{"word": "yes"}'))
    provider = made("compatible")
    await provider.answer(request(CLOSED))
    await provider.answer(request(CLOSED, Turn("no JSON", "That is no JSON.")))
    assert forms(models) == ["json_schema", "json_object"]
    assert [one["role"] for one in models.requests[1].body["messages"]] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("name", NAMES)
async def test_no_log_shows_the_key(models, made, name, caplog):
    caplog.set_level(logging.DEBUG)
    models.script(Say("yes"), Refuse(401, "authentication_error", KEY), Break("overloaded"))
    provider = made(name)
    await provider.answer(request())
    for kind in (NeedsPersonError, TransientError):
        with pytest.raises(kind) as caught:
            await provider.answer(request())
        assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(provider)


async def test_the_scripted_server_answers_whole_as_well(models, monkeypatch):
    """What a request without `stream` gets, so that the script may serve other clients too."""
    import openai  # noqa: PLC0415
    from anthropic import AsyncAnthropic  # noqa: PLC0415

    models.script(Say("one"), Say("two"), Say("three"))
    async with AsyncAnthropic(api_key=KEY, base_url=models.url, max_retries=0) as client:
        said = await client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]
        )  # fmt: skip
        assert said.content[0].text == "one"
    async with openai.AsyncOpenAI(api_key=KEY, base_url=models.url, max_retries=0) as client:
        response = await client.responses.create(model="m", input=[{"role": "user", "content": "x"}], store=False)
        assert response.output_text == "two"
        chat = await client.chat.completions.create(model="m", messages=[{"role": "system", "content": "x"}])
        assert chat.choices[0].message.content == "three"
