"""A sender: it signs the bytes that it sends and gives each delivery a fixed id."""

import base64
import hashlib
import hmac
import os
import sys
import time
from pathlib import Path

import httpx

url, payload, delivery = sys.argv[1], Path(sys.argv[2]).read_bytes(), sys.argv[3]
secret = base64.b64decode(os.environ["FEEDBACK_SECRET"].removeprefix("whsec_"))
sent_at = str(int(time.time()))
signed = b".".join([delivery.encode(), sent_at.encode(), payload])
signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
headers = {
    "content-type": "application/json",
    "webhook-id": delivery,
    "webhook-timestamp": sent_at,
    "webhook-signature": f"v1,{signature}",
}
answer = httpx.post(f"{url}/v1/webhooks/feedback", content=payload, headers=headers, trust_env=False)
print(answer.status_code, answer.text)
