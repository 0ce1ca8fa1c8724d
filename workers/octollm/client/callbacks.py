"""Verify received callbacks. Pure.

    callback = verify(request.headers, request.body, [os.environ["CALLBACK_SECRET"]])
    print(callback.id, callback.data["state"])

Pass the body as it was received: parsed and written again, it has another signature.
"""

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from octollm.errors import CallbackSignatureError, ParameterError

_TOLERANCE_S = 300.0
_MIN_KEY_BYTES = 24


class ReceivedCallback(NamedTuple):
    """A callback whose signature is right."""

    id: str
    """The same in every attempt: ignore one that you have processed."""
    type: str
    """`task.finished.v1`."""
    data: Mapping[str, Any]
    """`task`, `run`, `state`, `metadata`, `result` and more, see docs/callbacks.md."""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Iterable[str],
    *,
    tolerance_s: float = _TOLERANCE_S,
    now_s: float | None = None,
) -> ReceivedCallback:
    """Return a received callback if it is by OctoLLM.

    `headers`: of the request; upper and lower case are the same. `secrets`: those that are valid now, as in
    callbacks.yaml. `tolerance_s`: how far the timestamp may be from `now_s`, which is the current Unix time by default.

    Raises CallbackSignatureError if the request is not signed by one of the secrets or is too old, and ParameterError
    for a secret that cannot be used.
    """
    keys = [_key(secret) for secret in secrets]
    if not keys:
        raise ParameterError("secrets", "secrets must have at least one secret")
    found = {name.lower(): value for name, value in headers.items()}
    missing = [name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if not found.get(name)]
    if missing:
        raise CallbackSignatureError(f"the callback has no header {missing[0]}")
    stamp = found["webhook-timestamp"]
    if not re.fullmatch(r"[0-9]{1,12}", stamp) or abs(int(stamp) - (now_s or time.time())) > tolerance_s:
        raise CallbackSignatureError(f"the callback's timestamp is not within {tolerance_s:g} s of this clock")
    content = b".".join((found["webhook-id"].encode(), stamp.encode(), body))
    if not _is_signed(content, found["webhook-signature"], keys):
        raise CallbackSignatureError("the callback's signature is by none of the secrets")
    return _read(found["webhook-id"], body)


def _is_signed(content: bytes, signatures: str, keys: Sequence[bytes]) -> bool:
    """Whether one of the keys has made one of the signatures. Compares in constant time."""
    given = [one.partition(",")[2].encode() for one in signatures.split(" ") if one.startswith("v1,")]
    wanted = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)) for key in keys]
    return any(hmac.compare_digest(one, other) for one in given for other in wanted)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < _MIN_KEY_BYTES:
        raise ParameterError("secrets", f"a secret is whsec_ and the base64 of at least {_MIN_KEY_BYTES} bytes")
    return key


def _read(ident: str, body: bytes) -> ReceivedCallback:
    try:
        message = orjson.loads(body)
        return ReceivedCallback(ident, str(message["type"]), dict(message["data"]))
    except (ValueError, KeyError, TypeError) as error:
        raise CallbackSignatureError("the callback is signed, and its body is no callback of OctoLLM") from error
