"""The form of an API key, `octo_<id>_<secret>`, its digest and its scopes. Pure."""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal, get_args

Scope = Literal["submit", "read", "cancel", "operate", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""`admin` includes the others."""
DEFAULT_SCOPES: tuple[Scope, ...] = ("submit", "read", "cancel")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 12
_SECRET_BYTES = 32
_KEY = re.compile(r"octo_([a-z2-7]{12})_[a-z2-7]{52}")
_ID = re.compile(r"(?:octo_)?([a-z2-7]{12})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key with its secret. Its `repr` does not show the secret."""

    id: str
    text: str = field(repr=False)
    """The whole key, as a caller sends it."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole key, as it is stored."""
        return digest(self.text)


def new_key() -> ApiKey:
    """Return a random key: 60 random bits of id, 256 of secret."""
    ident = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    secret = base64.b32encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=").lower()
    return ApiKey(ident, f"octo_{ident}_{secret}")


def digest(text: str) -> bytes:
    """Return the SHA-256 of a whole key."""
    return hashlib.sha256(text.encode()).digest()


def id_of(text: str) -> str | None:
    """Return the id in a whole key; None if `text` does not have the form of a key."""
    found = _KEY.fullmatch(text)
    return None if found is None else found[1]


def named_id(text: str) -> str | None:
    """Return the id that a person names: `octo_<id>` or the id alone; None for anything else."""
    found = _ID.fullmatch(text)
    return None if found is None else found[1]


def visible(ident: str) -> str:
    """Return the part of a key that may be shown: `octo_<id>`."""
    return f"octo_{ident}"


def allows(scopes: frozenset[str], needed: Scope) -> bool:
    """Whether a credential with `scopes` may do what needs the scope `needed`."""
    return needed in scopes or "admin" in scopes
