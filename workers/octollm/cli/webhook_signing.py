"""Signs webhooks like their senders; the reflex verifies these signatures. Pure."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

from octollm.errors import WebhooksError
from octollm.topology.webhooks import Scheme


def sign(scheme: Scheme, secret: str, body: bytes, *, event: str, delivery: str, now_s: int) -> Mapping[str, str]:
    """Return the headers that sign `body`. Raises WebhooksError for an invalid secret.

    `event`: the event's name; `delivery`: the delivery's id; `now_s`: Unix time.
    """
    if scheme == "github":
        return {
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature-256": f"sha256={hmac.digest(secret.encode(), body, hashlib.sha256).hex()}",
        }
    signed = f"{delivery}.{now_s}.".encode() + body
    signature = base64.b64encode(hmac.digest(_standard_key(secret), signed, hashlib.sha256)).decode()
    return {"webhook-id": delivery, "webhook-timestamp": str(now_s), "webhook-signature": f"v1,{signature}"}


def _standard_key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise WebhooksError("the secret must be whsec_ followed by base64, as the sender shows it") from error
    if not key:
        raise WebhooksError("the secret is empty; it must be whsec_ followed by base64")
    return key
