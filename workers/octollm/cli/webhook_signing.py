"""Signs webhooks like their senders; the reflex verifies these signatures. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

from octollm.topology.webhook_secrets import signing_key
from octollm.topology.webhooks import Scheme


def sign(scheme: Scheme, secret: str, body: bytes, *, event: str, delivery: str, now_s: int) -> Mapping[str, str]:
    """Return the headers that sign `body`. Raises WebhooksError for an invalid secret.

    `event`: the event's name; `delivery`: the delivery's id; `now_s`: Unix time.
    """
    key = signing_key(scheme, secret)
    if scheme == "github":
        return {
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature-256": f"sha256={hmac.digest(key, body, hashlib.sha256).hex()}",
        }
    signed = f"{delivery}.{now_s}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {"webhook-id": delivery, "webhook-timestamp": str(now_s), "webhook-signature": f"v1,{signature}"}
