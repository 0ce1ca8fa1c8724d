"""The header in which the reflex says who asks."""

import time

import pytest

from octollm.credentials.caller import Caller, read_caller
from octollm.errors import CredentialError, ScopeError
from tests.helpers.callers import SECRET, signed


def read(value: str, method: str = "GET", *targets: str) -> Caller:
    return read_caller(SECRET.encode(), value, method, targets or ("/v1/tasks?limit=1",), time.time())


def test_a_signed_caller_is_believed():
    value = signed("acme", "GET", "/v1/tasks?limit=1", scopes="read,submit")
    assert read(value) == Caller("acme", frozenset({"read", "submit"}))
    assert read(signed("acme", "GET", "/v1/tasks?", scopes=""), "GET", "/v1/tasks", "/v1/tasks?").scopes == frozenset()


GOOD = signed("acme", "GET", "/v1/tasks?limit=1")


@pytest.mark.parametrize(
    "value",
    [
        signed("acme", "GET", "/v1/tasks?limit=2"),
        signed("acme", "GET", "/v1/tasks"),
        signed("acme", "POST", "/v1/tasks?limit=1"),
        signed("acme", "GET", "/v1/tasks?limit=1", secret="x" * 40),
        signed("acme", "GET", "/v1/tasks?limit=1", secret=""),
        signed("acme", "GET", "/v1/tasks?limit=1", expires_in_s=3600),
        signed("Acme", "GET", "/v1/tasks?limit=1"),
        signed("acme\nread", "GET", "/v1/tasks?limit=1"),
        GOOD.replace("acme", "other"),
        GOOD.replace("read", "admin"),
        GOOD.replace("exp=", "exp=1"),
        GOOD.replace("v1;", "v2;"),
        GOOD[:-1],
        GOOD[:-64] + GOOD[-64:].upper().replace("0", "O"),
        f"{GOOD};mac={'0' * 64}",
        f" {GOOD}",
        "",
        "x" * 100_000,
    ],
)
def test_what_the_reflex_did_not_sign_for_this_request_is_refused(value):
    with pytest.raises(CredentialError) as caught:
        read(value)
    assert caught.value.code == "invalid_credential"


def test_an_old_header_is_refused_as_expired():
    with pytest.raises(CredentialError) as caught:
        read(signed("acme", "GET", "/v1/tasks?limit=1", expires_in_s=-1))
    assert caught.value.code == "expired_credential"


def test_a_scope_is_required_by_name():
    Caller("acme", frozenset({"admin"})).require("operate")
    with pytest.raises(ScopeError, match="the scope operate"):
        Caller("acme", frozenset({"read"})).require("operate")
