"""Requests that the reflex would sign: the header's form is written down here a second time, on purpose."""

import hashlib
import hmac
import time
from collections.abc import Generator

import httpx

SECRET = "the secret that the tests' reflex and API share"  # noqa: S105  a made-up one
SCOPES = "admin,cancel,operate,read,submit"


def signed(
    tenant: str, method: str, target: str, *, secret: str = SECRET, scopes: str = SCOPES, expires_in_s: float = 30
) -> str:
    """The value of `octollm-caller` for one request."""
    expires = int(time.time() + expires_in_s)
    text = f"v1\n{expires}\n{tenant}\n{scopes}\n{method}\n{target}"
    code = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return f"v1;exp={expires};tenant={tenant};scopes={scopes};mac={code}"


class Reflex(httpx.Auth):
    """Signs each request for a tenant."""

    def __init__(self, tenant: str, scopes: str = SCOPES) -> None:
        self._tenant = tenant
        self._scopes = scopes

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        target = request.url.raw_path.decode()
        request.headers["octollm-caller"] = signed(self._tenant, request.method, target, scopes=self._scopes)
        yield request
