"""Signs callbacks by the Standard Webhooks specification. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Sequence


def signed_headers(message_id: str, now_s: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """Return the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.

    `now_s`: Unix time; `keys`: each adds one signature, so that a receiver that knows any of them accepts the message.
    """
    content = b".".join((message_id.encode(), str(now_s).encode(), body))
    signatures = (base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
    }
