"""What `octollm.client.callbacks.verify` accepts: what OctoLLM signs, in time, and nothing else."""

import base64

import orjson
import pytest

from octollm.callbacks.signature import signed_headers
from octollm.client import CallbackSignatureError, ParameterError
from octollm.client.callbacks import verify

NOW = 1_700_000_000
KEY, OLD, OTHER = (bytes([number]) * 24 for number in (1, 2, 3))
BODY = orjson.dumps({"type": "task.finished.v1", "timestamp": "t", "data": {"task": "l0-x", "state": "failed"}})


def secret(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def headers(*keys: bytes, **changes: str) -> dict[str, str]:
    made = signed_headers("l0-x.1", NOW, BODY, keys)
    return {**made, **{f"webhook-{name}": value for name, value in changes.items()}}


def test_a_callback_is_accepted_under_any_of_the_secrets_and_any_case_of_headers():
    given = {name.title(): value for name, value in headers(KEY, OLD).items()}
    for keys in ([KEY], [OLD], [OTHER, OLD]):
        found = verify(given, BODY, map(secret, keys), now_s=NOW + 299)
        assert (found.id, found.type, found.data["state"]) == ("l0-x.1", "task.finished.v1", "failed")


@pytest.mark.parametrize(
    ("changes", "body", "now"),
    [
        ({}, BODY + b" ", NOW),
        ({}, BODY, NOW + 301),
        ({}, BODY, NOW - 301),
        ({"id": "l0-y.1"}, BODY, NOW),
        ({"timestamp": str(NOW + 1)}, BODY, NOW),
        ({"timestamp": f"{NOW}.0"}, BODY, NOW),
        ({"timestamp": "-1"}, BODY, NOW),
        ({"timestamp": ""}, BODY, NOW),
        ({"signature": ""}, BODY, NOW),
        ({"signature": "v1,"}, BODY, NOW),
        ({"signature": "v1,\u00e9"}, BODY, NOW),
        ({"signature": headers(OTHER)["webhook-signature"]}, BODY, NOW),
        ({"signature": headers(KEY)["webhook-signature"].replace("v1,", "v1a,")}, BODY, NOW),
        ({"signature": headers(KEY)["webhook-signature"].removeprefix("v1,")}, BODY, NOW),
    ],
)
def test_an_altered_late_or_foreign_callback_is_refused(changes, body, now):
    with pytest.raises(CallbackSignatureError):
        verify(headers(KEY, **changes), body, [secret(KEY)], now_s=now)


def test_the_current_time_counts_by_default():
    with pytest.raises(CallbackSignatureError, match="not within 300 s"):
        verify(headers(KEY), BODY, [secret(KEY)])


def test_a_missing_header_is_named():
    given = headers(KEY)
    del given["webhook-timestamp"]
    with pytest.raises(CallbackSignatureError, match="webhook-timestamp"):
        verify(given, BODY, [secret(KEY)], now_s=NOW)


@pytest.mark.parametrize("secrets", [[], ["whsec_"], [secret(b"x" * 23)], ["no base64!"]])
def test_a_secret_that_cannot_be_used_is_refused_and_not_quoted(secrets):
    with pytest.raises(ParameterError) as error:
        verify(headers(KEY), BODY, secrets, now_s=NOW)
    assert "base64!" not in str(error.value)


def test_a_signed_body_that_is_no_callback_is_refused():
    for body in (b"[]", b"{}", b"no json", b'{"type": "x", "data": 1}'):
        given = signed_headers("l0-x.1", NOW, body, [KEY])
        with pytest.raises(CallbackSignatureError, match="no callback"):
            verify(given, body, [secret(KEY)], now_s=NOW)
