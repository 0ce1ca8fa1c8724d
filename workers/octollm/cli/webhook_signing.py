"""Signs webhooks like their senders; the reflex verifies these signatures. Pure."""

import base64
import hmac
from collections.abc import Mapping

from octollm.topology.webhook_secrets import STANDARD_PREFIX, signing_key
from octollm.topology.webhooks import Hmac, Source


def sign(source: Source, secret: str, body: bytes, *, event: str, delivery: str, now_s: int) -> Mapping[str, str]:
    """Return the headers that sign `body` as the sender of `source` does.

    Raises WebhooksError for an invalid secret.

    `event`: the event's name; `delivery`: the delivery's id; `now_s`: Unix time.
    """
    key = signing_key(source, secret)
    headers = _signature(source, secret, key, body, event=event, delivery=delivery, now_s=now_s)
    if source.event is not None and source.event.header is not None:
        headers = {**headers, source.event.header: event}
    return headers


def _signature(
    source: Source, secret: str, key: bytes, body: bytes, *, event: str, delivery: str, now_s: int
) -> Mapping[str, str]:
    if source.hmac is not None:
        return _own_hmac(source.hmac, key, body, delivery=delivery, now_s=now_s)
    if source.shared_secret is not None:
        return {source.shared_secret.header: source.shared_secret.prefix + secret}
    if source.scheme == "gitlab" and not secret.startswith(STANDARD_PREFIX):
        return {"X-Gitlab-Event-UUID": delivery, "X-Gitlab-Token": secret}
    if source.scheme == "github":
        signature = f"sha256={_mac(key, '', body).hex()}"
        return {"X-GitHub-Event": event, "X-GitHub-Delivery": delivery, "X-Hub-Signature-256": signature}
    return _TIMED[source.scheme](key, body, delivery, str(now_s))


def _standard(key: bytes, body: bytes, delivery: str, now: str) -> Mapping[str, str]:
    signature = base64.b64encode(_mac(key, f"{delivery}.{now}.", body)).decode()
    return {"webhook-id": delivery, "webhook-timestamp": now, "webhook-signature": f"v1,{signature}"}


def _stripe(key: bytes, body: bytes, _delivery: str, now: str) -> Mapping[str, str]:
    return {"Stripe-Signature": f"t={now},v1={_mac(key, f'{now}.', body).hex()}"}


def _slack(key: bytes, body: bytes, _delivery: str, now: str) -> Mapping[str, str]:
    signature = f"v0={_mac(key, f'v0:{now}:', body).hex()}"
    return {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": signature}


_TIMED = {"standard": _standard, "gitlab": _standard, "stripe": _stripe, "slack": _slack}


def _own_hmac(options: Hmac, key: bytes, body: bytes, *, delivery: str, now_s: int) -> Mapping[str, str]:
    before, after = options.format.split("{body}")
    values = {"{timestamp}": str(now_s), "{id}": delivery}
    for placeholder, value in values.items():
        before, after = before.replace(placeholder, value), after.replace(placeholder, value)
    digest = hmac.digest(key, before.encode() + body + after.encode(), options.algorithm)
    match options.encoding:
        case "hex":
            signature = digest.hex()
        case "base64":
            signature = base64.b64encode(digest).decode()
        case "base64url":
            signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    headers = {options.header: options.prefix + signature}
    if options.timestamp_header is not None:
        headers[options.timestamp_header] = str(now_s)
    if options.id_header is not None:
        headers[options.id_header] = delivery
    return headers


def _mac(key: bytes, before: str, body: bytes) -> bytes:
    return hmac.digest(key, before.encode() + body, "sha256")
