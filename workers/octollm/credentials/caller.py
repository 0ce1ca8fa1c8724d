"""Who a request acts for, and the header in which the reflex says so to the API. Pure."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from octollm.credentials.key import SCOPES, Scope
from octollm.errors import CredentialError, ScopeError

CALLER_HEADER = "octollm-caller"
_FORM = re.compile(
    r"v1;exp=([0-9]{1,12});tenant=([a-z0-9][a-z0-9_-]{0,62});scopes=([a-z]+(?:,[a-z]+)*|);mac=([0-9a-f]{64})"
)
_LONGEST_S = 120
"""The reflex signs for 30 s; a header that is valid for longer is not one of its own."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant that a request acts for, and what it may do."""

    tenant: str
    scopes: frozenset[str]

    def require(self, scope: Scope) -> None:
        """Raise ScopeError unless the caller has the scope, or `admin`, which includes all."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise ScopeError(
                f"this needs a credential with the scope {scope}; `octollm keys create --scope {scope}` makes one"
            )


ANONYMOUS = Caller("default", frozenset(SCOPES))
"""A request without a credential, where those are allowed."""


def read_caller(secret: bytes, value: str, method: str, targets: Sequence[str], now_s: float) -> Caller:
    """Return the caller that the reflex names in the header `octollm-caller`.

    The header is `v1;exp=<Unix time>;tenant=<tenant>;scopes=<comma-separated>;mac=<hex>`. `mac` is the HMAC-SHA256 of
    these values, the method and the target, one a line.

    `targets`: the request's path and query, in each spelling that may have been signed. Raises CredentialError.
    """
    found = _FORM.fullmatch(value)
    if found is None:
        raise CredentialError(
            "invalid_credential", f"the header {CALLER_HEADER} does not have the form that the reflex sends"
        )
    expires, tenant, scopes, code = found.groups()
    matches = False
    for target in targets:
        signed = "\n".join(("v1", expires, tenant, scopes, method, target))
        matches |= hmac.compare_digest(hmac.digest(secret, signed.encode(), hashlib.sha256), bytes.fromhex(code))
    if not matches or int(expires) > now_s + _LONGEST_S:
        raise CredentialError(
            "invalid_credential",
            f"the header {CALLER_HEADER} is not signed for this request; give the reflex and the API the same "
            "OCTOLLM_API_SECRET",
        )
    if int(expires) <= now_s:
        raise CredentialError("expired_credential", f"the header {CALLER_HEADER} has expired")
    return Caller(tenant, frozenset(scopes.split(",")) - {""})
