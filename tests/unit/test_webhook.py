"""Signing and samples of `octollm webhook send`, on the public test values of each scheme."""

from pathlib import Path
from urllib.parse import parse_qs

import orjson
import pytest

from octollm.cli.webhook_samples import sample
from octollm.cli.webhook_signing import sign
from octollm.errors import WebhooksError
from octollm.topology.webhook_secrets import unusable_secrets
from octollm.topology.webhooks import Source

PUBLISHED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


SLACK = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
    b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121"
    b".803a0bc887a14d10d2c447fce8b6703c"
)
STRIPE_EVENT = Path(__file__).parents[2] / "reflex-rs/tests/data/stripe_event.json"


def source(scheme: str, name: str = "made", /, **options: object) -> Source:
    mapping = {
        "kind": "note",
        "goal": "g",
        "only": {"/action": ["opened"]},
        "input": {"title": "/issue/title", "text": "/data/a~1b"},
    }
    plain = {"description": "", "scheme": scheme, "tenant": "t", "secrets": ["env:X"], "events": {name: mapping}}
    return Source.model_validate(plain | options)


def test_github_signs_as_its_documentation_says():
    headers = sign(
        source("github"), "It's a Secret to Everybody", b"Hello, World!", event="issues", delivery="d", now_s=0
    )
    assert headers == {
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": "d",
        "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    }


@pytest.mark.parametrize("scheme", ["standard", "gitlab"])
def test_standard_webhooks_signs_as_the_specification_says(scheme):
    identity = "msg_p5jXN8AQM9LWM0D4loKWxJek"
    body = b'{"test": 2432232314}'
    headers = sign(source(scheme), PUBLISHED, body, event="x", delivery=identity, now_s=1614265330)
    assert headers == {
        "webhook-id": identity,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_slack_signs_as_its_documentation_says():
    assert sign(
        source("slack"), "8f742231b10e8888abcd99yyyzzz85a5", SLACK, event="x", delivery="d", now_s=1531420618
    ) == {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }


def test_stripe_signs_as_its_own_libraries_expect(monkeypatch):
    # The published secret is shorter than what may be configured.
    monkeypatch.setattr("octollm.topology.webhook_secrets._MIN_BYTES", 14)
    body = STRIPE_EVENT.read_bytes()
    headers = sign(source("stripe"), "webhook_secret", body, event="x", delivery="d", now_s=1533204620)
    signature = "f0bdba6d4eacbd8ad8a3bbadd7248e633ec1477f7899c124c51b39405fa36613"
    assert headers == {"Stripe-Signature": f"t=1533204620,v1={signature}"}


def test_secrets_that_are_sent_as_they_are():
    secret = "a secret of 24 character"  # noqa: S105  of this test
    bearer = {"header": "Authorization", "prefix": "Bearer "}
    shared = source("shared_secret", shared_secret=bearer, event={"header": "X-Event"})
    headers = sign(shared, secret, b"{}", event="made", delivery="d", now_s=0)
    assert headers == {"authorization": f"Bearer {secret}", "x-event": "made"}
    gitlab = sign(source("gitlab"), secret, b"{}", event="issue", delivery="d", now_s=0)
    assert gitlab["X-Gitlab-Token"] == secret


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        # RFC 4231 and RFC 2202, test case 1.
        (
            {"prefix": "sha256="},
            {"x-sig": "sha256=b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        ),
        ({"algorithm": "sha1", "encoding": "base64"}, {"x-sig": "thcxhlUFcmTii8C2+zeMjvFGvgA="}),
        ({"algorithm": "sha1", "encoding": "base64url"}, {"x-sig": "thcxhlUFcmTii8C2-zeMjvFGvgA"}),
    ],
)
def test_an_hmac_of_ones_own_is_written_as_the_source_says(options, headers):
    options = {"header": "X-Sig", "secret_encoding": "hex"} | options
    found = source("hmac", hmac=options, event={"name": "made"})
    assert sign(found, "0b" * 20, b"Hi There", event="made", delivery="d", now_s=0) == headers


def test_an_hmac_signs_what_its_format_says():
    options = {
        "header": "X-Sig",
        "prefix": "v1,",
        "encoding": "base64",
        "secret_encoding": "base64",
        "id_header": "X-Id",
        "timestamp_header": "X-Time",
        "format": "{id}.{timestamp}.{body}",
    }
    found = source("hmac", hmac=options, event={"name": "made"})
    identity = "msg_p5jXN8AQM9LWM0D4loKWxJek"
    secret = PUBLISHED.removeprefix("whsec_")
    headers = sign(found, secret, b'{"test": 2432232314}', event="made", delivery=identity, now_s=1614265330)
    assert headers == {
        "x-id": identity,
        "x-time": "1614265330",
        "x-sig": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


WEAK = [
    ("standard", {}, ["", "whsec_", "whsec_not base64", "hunter2!", "whsec_eA=="]),
    ("gitlab", {}, ["hunter2", "fifteen charact", "whsec_eA=="]),
    ("github", {}, ["hunter2", "fifteen charact"]),
    ("stripe", {}, ["hunter2", "whsec_fifteen charact"]),
    ("slack", {}, ["hunter2", "fifteen charact"]),
    ("shared_secret", {"shared_secret": {"header": "X"}}, ["hunter2", "fifteen charact"]),
    ("hmac", {"hmac": {"header": "X"}}, ["hunter2", "fifteen charact"]),
    ("hmac", {"hmac": {"header": "X", "secret_encoding": "hex"}}, ["hunter2", "0b" * 15, "not hexadecimal, but long"]),
    ("hmac", {"hmac": {"header": "X", "secret_encoding": "base64"}}, ["hunter2", "eHh4eHh4eHh4eHh4eHh4"]),
    ("hmac", {"hmac": {"header": "X", "secret_encoding": "base64url"}}, ["hunter2", "eHh4eHh4eHh4eHh4eHh4"]),
]


@pytest.mark.parametrize(
    ("scheme", "options", "secret"), [(scheme, options, one) for scheme, options, weak in WEAK for one in weak]
)
def test_a_weak_secret_is_refused_without_being_shown(scheme, options, secret):
    with pytest.raises(WebhooksError) as caught:
        sign(source(scheme, **options), secret, b"{}", event="x", delivery="d", now_s=0)
    assert "hunter2" not in caught.value.message


def test_every_secret_that_is_set_and_weak_is_named(monkeypatch, tmp_path):
    (tmp_path / "weak").write_text("hunter2\n")
    places = ("env:GOOD", "env:ABSENT", "env:WEAK", f"file:{tmp_path}/weak", f"file:{tmp_path}")
    monkeypatch.setenv("GOOD", "It's a Secret to Everybody")
    monkeypatch.setenv("WEAK", "fifteen charact")
    found = list(unusable_secrets({"one": source("github", "issues").model_copy(update={"secrets": places})}))
    assert [line.split(": ")[0] for line in found] == [f"source one, {place}" for place in places[2:]]
    assert "hunter2" not in str(found)
    monkeypatch.setenv("X", "whsec_eA==")
    assert "24 to 64 bytes" in next(iter(unusable_secrets({"two": source("standard", "a")})))


def test_the_sample_of_githubs_issues_takes_another_title():
    payload = orjson.loads(sample(source("github", "issues"), "issues", "d", {"title": "mine"}))
    assert (payload["issue"]["title"], payload["action"]) == ("mine", "opened")
    assert {"issue", "repository", "sender"} <= payload.keys()


def test_any_mapped_event_has_a_payload_that_holds_what_it_reads():
    payload = orjson.loads(sample(source("standard", "a.b"), "a.b", "d", {"text": "mine"}))
    assert payload == {
        "type": "a.b",
        "action": "opened",
        "issue": {"title": "a sample of title"},
        "data": {"a/b": "mine"},
    }


def test_what_no_sample_can_be_made_of_is_said():
    with pytest.raises(WebhooksError, match="push"):
        sample(source("github", "issues"), "push", "d", {})
    with pytest.raises(WebhooksError, match="no input body"):
        sample(source("github", "issues"), "issues", "d", {"body": "x"})


@pytest.mark.parametrize(
    ("scheme", "envelope"),
    [
        ("standard", {"type": "made"}),
        ("gitlab", {"object_kind": "made"}),
        ("stripe", {"type": "made", "id": "d"}),
        ("slack", {"type": "event_callback", "event": {"type": "made"}, "event_id": "d"}),
        ("github", {}),
    ],
)
def test_a_payload_says_which_event_it_is_where_the_scheme_wants_it(scheme, envelope):
    payload = orjson.loads(sample(source(scheme), "made", "d", {}))
    assert envelope.items() <= payload.items()


def test_a_form_has_the_payload_and_a_slash_command_its_fields():
    form = parse_qs(sample(source("slack"), "made", "d", {}, form=True).decode())
    assert orjson.loads(form["payload"][0])["type"] == "made"
    mapping = {"kind": "note", "goal": "g", "input": {"text": "/text"}}
    command = source("slack", events={"/note": mapping})
    assert sample(command, "/note", "d", {"text": "hello"}, form=True) == b"text=hello&command=%2Fnote"
