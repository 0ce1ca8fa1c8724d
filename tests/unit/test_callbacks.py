"""Callbacks: the signature, the schedule, callbacks.yaml, and what is shown of an answer."""

import subprocess
from pathlib import Path

import pytest

from octollm.callbacks.http import shown
from octollm.callbacks.schedule import DELAYS_S, next_delay_s
from octollm.callbacks.signature import signed_headers
from octollm.errors import CallbacksError
from octollm.resources import checkout
from octollm.topology.callbacks import load_callbacks, signing_keys, unusable_secrets

# From the reference implementations of the Standard Webhooks specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  published
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

FILE = """
version: 1
tenants:
  acme: {secrets: [env:CB_SECRET], hosts: [hooks.acme.example]}
endpoints:
  billing:
    description: where invoices are made
    tenant: acme
    url: https://billing.acme.example/octollm
    secrets: [env:CB_NEW, env:CB_SECRET]
    kinds: [invoice]
    states: [succeeded]
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path: Path = tmp_path / "callbacks.yaml"
    path.write_text(FILE)
    return path


def test_the_signature_is_the_published_one(monkeypatch):
    monkeypatch.setenv("CB_SECRET", SECRET)
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, BODY, signing_keys(("env:CB_SECRET",)))
    assert headers["webhook-signature"] == SIGNATURE


def test_openssl_agrees(monkeypatch):
    key = bytes(range(24))
    headers = signed_headers("l0-x.1", 1_700_000_000, BODY, [key])
    content = b"l0-x.1.1700000000." + BODY
    made = subprocess.run(
        ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", "-binary"],
        input=content, capture_output=True, check=True,
    ).stdout  # fmt: skip
    encoded = subprocess.run(["openssl", "base64", "-A"], input=made, capture_output=True, check=True).stdout
    assert headers["webhook-signature"] == f"v1,{encoded.decode()}"


def test_every_secret_that_is_set_signs(monkeypatch):
    monkeypatch.setenv("CB_SECRET", SECRET)
    monkeypatch.setenv("CB_NEW", "whsec_" + "A" * 32)
    assert len(signing_keys(("env:CB_NEW", "env:CB_SECRET", "env:CB_OLD"))) == 2


@pytest.mark.parametrize("secret", ["whsec_" + "A" * 28, "plain text that is no base64", "whsec_" + "A" * 92])
def test_a_weak_or_malformed_secret_is_refused_and_not_quoted(monkeypatch, secret):
    monkeypatch.setenv("CB_SECRET", secret)
    with pytest.raises(CallbacksError) as error:
        signing_keys(("env:CB_SECRET",))
    assert secret not in str(error.value)


def test_the_delays_grow_and_end():
    for attempt, planned in enumerate(DELAYS_S, start=1):
        found = next_delay_s(attempt, None)
        assert found is not None
        assert planned <= found <= planned * 1.2
    assert next_delay_s(len(DELAYS_S) + 1, None) is None
    assert next_delay_s(len(DELAYS_S) + 1, 5) is None


def test_the_receiver_may_ask_for_a_longer_pause_of_up_to_a_day():
    assert next_delay_s(1, 3600) == 3600
    assert next_delay_s(1, 10**9) == 86_400
    found = next_delay_s(2, 1)
    assert found is not None
    assert found >= 300


def test_what_a_receiver_answers_is_shown_without_control_characters_and_secrets():
    token = "ghp_" + "a" * 36
    found = shown(f"\x1b[31mno\x00 {token} {SECRET}".encode() + b"\xff")
    assert token not in found
    assert SECRET not in found
    assert not set(found) & set("\x00\x1b")


def test_the_file_is_read(file):
    endpoint = load_callbacks(file).endpoints["billing"]
    assert endpoint.wants("acme", "invoice", "succeeded")
    assert not endpoint.wants("acme", "invoice", "failed")
    assert not endpoint.wants("acme", "other", "succeeded")
    assert not endpoint.wants("another", "invoice", "succeeded")


def test_the_file_that_ships_sends_nothing():
    root = checkout()
    assert root is not None
    rules = load_callbacks(root / "callbacks.yaml")
    assert (rules.tenants, rules.endpoints) == ({}, {})
    assert rules.network.ports == (443,)


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("version: 1", "version: 2", "version"),
        ("version: 1", "version: '1'", "version"),
        ("env:CB_SECRET], hosts", "whsec_abc], hosts", "tenants.acme.secrets"),
        ("secrets: [env:CB_SECRET]", "secrets: []", "tenants.acme.secrets"),
        ("https://billing", "https://user@billing", "endpoints.billing.url"),
        ("https://billing", "ftp://billing", "endpoints.billing.url"),
        ("[succeeded]", "[running]", "endpoints.billing.states"),
        ("[succeeded]", "[]", "endpoints.billing.states"),
        ("tenant: acme", "tenant: ACME", "endpoints.billing.tenant"),
        ("kinds:", "kind:", "endpoints.billing.kind"),
        ("  billing:", "  Billing:", "endpoints.Billing"),
        ("version: 1", "version: 1\nnetwork: {ports: [0]}", "network.ports"),
        ("version: 1", "version: 1\nnetwork: {private_networks: [10.0.0.1/8]}", "network.private_networks"),
        ("version: 1", "version: 1\nnetwork: {http_hosts: ['http://x']}", "network.http_hosts"),
        ("version: 1", "version: 1\nother: {}", "other"),
        ("tenants:\n", "tenant:\n", "tenants"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(file, old, new, place):
    assert old in FILE
    file.write_text(FILE.replace(old, new))
    with pytest.raises(CallbacksError, match=place.replace(".", r"\.")) as error:
        load_callbacks(file)
    assert "whsec_abc" not in str(error.value)


def test_a_secret_that_is_not_set_is_reported(file, monkeypatch):
    monkeypatch.setenv("CB_SECRET", SECRET)
    assert unusable_secrets(load_callbacks(file)) == []
    monkeypatch.delenv("CB_SECRET")
    assert len(unusable_secrets(load_callbacks(file))) == 2
