"""The secrets of webhook sources: where they are, and whether they are strong enough.

The reflex has the same rules.
"""

import base64
import binascii
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from octollm.errors import WebhooksError
from octollm.topology.webhooks import SecretEncoding, Source

STANDARD_PREFIX = "whsec_"
_MIN_BYTES = 16
_MIN_STANDARD_BYTES = 24
_MAX_STANDARD_BYTES = 64


def read_secret(place: str) -> str:
    """Return the secret at `place`, `env:NAME` or `file:PATH`; "" if there is none.

    Raises WebhooksError for a file that cannot be read.
    """
    kind, _, rest = place.partition(":")
    if kind == "env":
        return os.environ.get(rest, "").rstrip("\r\n")
    try:
        return Path(rest).read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise WebhooksError(f"the secret in {rest} cannot be read; fix the file or its permissions") from error


def signing_key(source: Source, secret: str) -> bytes:
    """Return the key that `secret` stands for at this source.

    For GitLab, a secret that begins with `whsec_` is a signing token; any other is sent as it is.

    Raises WebhooksError if it is weak or malformed; no error quotes it.
    """
    if source.scheme == "standard" or (source.scheme == "gitlab" and secret.startswith(STANDARD_PREFIX)):
        return standard_key(secret)
    encoding = source.hmac.secret_encoding if source.hmac is not None else "plain"
    if encoding != "plain":
        key = _decode(encoding, secret)
        if len(key) < _MIN_BYTES:
            raise WebhooksError(f"the secret must be the {encoding} of at least {_MIN_BYTES} bytes")
        return key
    if len(secret.removeprefix(STANDARD_PREFIX).encode()) < _MIN_BYTES:
        raise WebhooksError(
            f"the secret must have at least {_MIN_BYTES} characters; "
            "generate it, for example with `openssl rand -hex 32`"
        )
    return secret.encode()


def standard_key(secret: str) -> bytes:
    """Return the key of a secret of Standard Webhooks, `whsec_` and base64.

    Raises WebhooksError if it is weak or malformed; no error quotes it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise WebhooksError("the secret must be whsec_ followed by base64, as the sender shows it") from error
    if not _MIN_STANDARD_BYTES <= len(key) <= _MAX_STANDARD_BYTES:
        raise WebhooksError(
            f"the secret must be whsec_ and the base64 of {_MIN_STANDARD_BYTES} to {_MAX_STANDARD_BYTES} bytes"
        )
    return key


def _decode(encoding: SecretEncoding, secret: str) -> bytes:
    """Return the bytes that a secret stands for, b"" if it is not written so."""
    try:
        if encoding == "hex":
            return binascii.unhexlify(secret)
        padded = secret.rstrip("=") + "=" * (-len(secret.rstrip("=")) % 4)
        return base64.b64decode(padded, altchars=b"-_" if encoding == "base64url" else None, validate=True)
    except ValueError:
        return b""


def unusable_secrets(sources: Mapping[str, Source]) -> Iterable[str]:
    """Yield a sentence for each secret that is set and cannot be used."""
    for name, source in sources.items():
        for place in source.secrets:
            try:
                secret = read_secret(place)
                if secret:
                    signing_key(source, secret)
            except WebhooksError as error:
                yield f"source {name}, {place}: {error}"
