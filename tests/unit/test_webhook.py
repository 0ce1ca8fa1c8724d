"""Signing and samples of `octollm webhook send`, on the public test values of each scheme."""

import orjson
import pytest

from octollm.cli.webhook_samples import sample
from octollm.cli.webhook_signing import sign
from octollm.errors import WebhooksError
from octollm.topology.webhook_secrets import unusable_secrets
from octollm.topology.webhooks import Source

PUBLISHED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_github_signs_as_its_documentation_says():
    headers = sign("github", "It's a Secret to Everybody", b"Hello, World!", event="issues", delivery="d", now_s=0)
    assert headers == {
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": "d",
        "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    }


def test_standard_webhooks_signs_as_the_specification_says():
    identity = "msg_p5jXN8AQM9LWM0D4loKWxJek"
    headers = sign("standard", PUBLISHED, b'{"test": 2432232314}', event="x", delivery=identity, now_s=1614265330)
    assert headers == {
        "webhook-id": identity,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "hunter2!", "whsec_eA=="])
def test_a_secret_that_cannot_sign_is_refused_without_being_shown(secret):
    with pytest.raises(WebhooksError) as caught:
        sign("standard", secret, b"{}", event="x", delivery="d", now_s=0)
    assert "hunter2" not in caught.value.message


def test_every_secret_that_is_set_and_weak_is_named(monkeypatch, tmp_path):
    (tmp_path / "weak").write_text("hunter2\n")
    places = ("env:GOOD", "env:ABSENT", "env:WEAK", f"file:{tmp_path}/weak", f"file:{tmp_path}")
    monkeypatch.setenv("GOOD", "It's a Secret to Everybody")
    monkeypatch.setenv("WEAK", "fifteen letters")
    found = list(unusable_secrets({"one": source("github", "issues").model_copy(update={"secrets": places})}))
    assert [line.split(": ")[0] for line in found] == [f"source one, {place}" for place in places[2:]]
    assert "hunter2" not in str(found)
    monkeypatch.setenv("X", "whsec_eA==")
    assert "24 to 64 bytes" in next(iter(unusable_secrets({"two": source("standard", "a")})))


def source(scheme: str, event: str) -> Source:
    mapping = {
        "kind": "note",
        "goal": "g",
        "only": {"/action": ["opened"]},
        "input": {"title": "/issue/title", "text": "/data/a~1b"},
    }
    return Source.model_validate(
        {"description": "", "scheme": scheme, "tenant": "t", "secrets": ["env:X"], "events": {event: mapping}}
    )


def test_the_sample_of_githubs_issues_takes_another_title():
    payload = orjson.loads(sample(source("github", "issues"), "issues", {"title": "mine"}))
    assert (payload["issue"]["title"], payload["action"]) == ("mine", "opened")
    assert {"issue", "repository", "sender"} <= payload.keys()


def test_any_mapped_event_has_a_payload_that_holds_what_it_reads():
    payload = orjson.loads(sample(source("standard", "a.b"), "a.b", {"text": "mine"}))
    assert payload == {
        "type": "a.b",
        "action": "opened",
        "issue": {"title": "a sample of title"},
        "data": {"a/b": "mine"},
    }


def test_what_no_sample_can_be_made_of_is_said():
    with pytest.raises(WebhooksError, match="push"):
        sample(source("github", "issues"), "push", {})
    with pytest.raises(WebhooksError, match="no input body"):
        sample(source("github", "issues"), "issues", {"body": "x"})
