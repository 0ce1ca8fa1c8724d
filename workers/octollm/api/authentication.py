"""Finds out who a request acts for, before any route sees it. Asks no store.

A caller has an API key, or comes through the reflex, which signs who it is, or has no credential. The address of a
caller proves nothing. A route is open to everyone only if it is one of `operate`; each other one needs the scope
`read`, or `operate` if its method changes something, so that a new route is protected by default.
"""

from http import HTTPStatus

from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from octollm.api import operate
from octollm.api.hosts import AllowedHosts
from octollm.api.problem import problem
from octollm.credentials.caller import ANONYMOUS, CALLER_HEADER, Caller, read_caller
from octollm.credentials.table import KeyTable
from octollm.errors import CredentialError, CredentialsUnavailableError, ForeignHostError, OctoError, ScopeError

AUTHENTICATIONS = Counter(
    "octollm_api_authentications_total", "Requests by the kind of credential or the reason of the refusal.", ("result",)
)
_OPEN = frozenset(route.path for route in operate.router.routes if isinstance(route, Route))
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_KEY = 200


class Authenticator:
    """Checks the credentials of one API."""

    def __init__(self, keys: KeyTable, hosts: AllowedHosts, secret: str, *, anonymous: bool) -> None:
        """`secret`: shared with the reflex; empty: its header is refused.

        `anonymous`: callers need no credential.
        """
        self._keys = keys
        self._hosts = hosts
        self._secret = secret.encode()
        self._anonymous = anonymous

    def problem(self) -> str | None:
        """Return why no API key can be checked now, or None."""
        return self._keys.problem()

    def authenticate(self, method: str, targets: list[str], headers: Headers) -> tuple[Caller, str]:
        """Return the caller and the kind of its credential: reflex, key or none.

        Raises CredentialError, CredentialsUnavailableError or ForeignHostError.
        """
        signed = headers.getlist(CALLER_HEADER)
        if signed:
            return self._from_reflex(method, targets, signed), "reflex"
        keys = _keys_in(headers)
        if keys:
            if keys[0].count(".") == 2:  # a JSON Web Token has three parts
                raise CredentialError("invalid_credential", "the API takes API keys; the reflex takes JSON Web Tokens")
            if len(keys) > 1 or len(keys[0]) > _MAX_KEY:
                raise CredentialError("invalid_credential", "send one API key, in one header")
            return self._keys.caller_of(keys[0]), "key"
        if not self._anonymous:
            raise CredentialError("missing_credential", "send an API key as `Authorization: Bearer octo_...`")
        self.check_hosts(headers)
        return ANONYMOUS, "none"

    def check_hosts(self, headers: Headers) -> None:
        """Raise ForeignHostError if a page of another host may have caused the request."""
        if not self._hosts.allow(headers.getlist("host"), headers.getlist("origin")):
            raise ForeignHostError("the request names a foreign host; use a loopback address, or send an API key")

    def _from_reflex(self, method: str, targets: list[str], signed: list[str]) -> Caller:
        if not self._secret:
            raise CredentialError(
                "invalid_credential",
                f"the API has no secret to check the header {CALLER_HEADER} with; give it and the reflex the same "
                "OCTOLLM_API_SECRET",
            )
        if len(signed) > 1:
            raise CredentialError("invalid_credential", f"the header {CALLER_HEADER} is given more than once")
        return read_caller(self._secret, signed[0], method, targets, self._keys.now().timestamp())


class Authentication:
    """ASGI middleware that puts the caller into `request.state.caller`, or answers with a problem."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        """Wrap `app`."""
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
        except OctoError as error:
            status, code, detail = _refusal(error)
            AUTHENTICATIONS.labels(code).inc()
            await problem(status, code, detail)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if scope["path"] in _OPEN:
            self._authenticator.check_hosts(headers)
            return
        caller, kind = self._authenticator.authenticate(scope["method"], _targets(scope), headers)
        caller.require("read" if scope["method"] in _READING else "operate")
        scope.setdefault("state", {})["caller"] = caller
        AUTHENTICATIONS.labels(kind).inc()


def _keys_in(headers: Headers) -> list[str]:
    """Return the keys in `Authorization` and `X-Api-Key`.

    A scheme other than Bearer counts as an empty key, which is a wrong one.
    """
    values = headers.getlist("authorization")
    bearer = [value[7:].strip() if value[:7].lower() == "bearer " else "" for value in values]
    return bearer + headers.getlist("x-api-key")


def _targets(scope: Scope) -> list[str]:
    """Return the request's target as it was sent.

    Without a query, also with the question mark that ASGI hides.
    """
    path = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    return [f"{path}?{query}"] if query else [path, f"{path}?"]


def _refusal(error: OctoError) -> tuple[HTTPStatus, str, str]:
    """Return status, code and detail of the problem for an error that `_admit` raises."""
    match error:
        case CredentialError():
            return HTTPStatus.UNAUTHORIZED, error.code, error.message
        case ScopeError():
            return HTTPStatus.FORBIDDEN, "insufficient_scope", error.message
        case ForeignHostError():
            return HTTPStatus.FORBIDDEN, "foreign_host", error.message
        case CredentialsUnavailableError():
            detail = "credentials cannot be checked now; keep yours and try again"
            return HTTPStatus.SERVICE_UNAVAILABLE, "credentials_unavailable", detail
    raise error
