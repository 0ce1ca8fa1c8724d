"""Creates, lists, revokes and rotates API keys in Postgres. Postgres's clock decides what is valid."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import asyncpg

from octollm.credentials.key import ApiKey, Scope, new_key, visible
from octollm.database.pool import Pool, acquired, transaction
from octollm.database.queries import queries
from octollm.errors import ApiKeyError

_SQL = queries("octollm.credentials", "keys")
KeyState = Literal["valid", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is stored about a key, except its hash."""

    id: str
    tenant: str
    name: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    """None: it does not expire."""
    revoked_at: datetime | None
    last_used_at: datetime | None
    """At most some seconds late; None: never."""
    replaces: str | None
    """Id of the key that this one replaces."""
    state: KeyState
    """When it was read."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a new key is valid; neither: for ever."""

    until: datetime | None = None
    lasts: timedelta | None = None


async def create(
    pool: Pool, tenant: str, scopes: Sequence[Scope], lifetime: Lifetime, name: str | None = None
) -> tuple[ApiKey, KeyRecord]:
    """Store a new key; return it and its record. Only the caller ever sees the key."""
    async with transaction(pool) as connection:
        key = new_key()
        row = await connection.fetchrow(
            _SQL["insert"], key.id, tenant, name, key.digest, scopes, lifetime.until, lifetime.lasts, None
        )
    return key, _record(row)


async def list_keys(pool: Pool, tenant: str | None, limit: int) -> list[KeyRecord]:
    """Return up to `limit` keys, newest first; `tenant`: only its keys."""
    async with acquired(pool) as connection:
        return [_record(row) for row in await connection.fetch(_SQL["list"], tenant, limit)]


async def revoke(pool: Pool, ident: str) -> tuple[KeyRecord, bool]:
    """Revoke a key for good; return its record and whether it was valid or expired before.

    Raises ApiKeyError if there is no such key.
    """
    async with transaction(pool) as connection:
        before = _record(await connection.fetchrow(_SQL["lock"], ident), ident)
        if before.state == "revoked":
            return before, False
        return _record(await connection.fetchrow(_SQL["revoke"], ident), ident), True


async def rotate(
    pool: Pool, ident: str, overlap: timedelta, lifetime: Lifetime | None = None
) -> tuple[ApiKey, KeyRecord, KeyRecord]:
    """Store a successor with the same tenant, name and scopes; the old key expires after `overlap`.

    `lifetime`: of the successor; None: as long as the old key had. Return the new key, its record, and the old key's.
    Raises ApiKeyError if there is no such key, if it is no longer valid, or if it has a valid successor.
    """
    async with transaction(pool) as connection:
        old = _record(await connection.fetchrow(_SQL["lock"], ident), ident)
        if old.state != "valid":
            raise ApiKeyError(f"the key {visible(ident)} is {old.state}; create a new one with `octollm keys create`")
        successor = await connection.fetchval(_SQL["successor"], ident)
        if successor is not None:
            raise ApiKeyError(
                f"the key {visible(ident)} was rotated before and {visible(successor)} replaces it; rotate that one, "
                "or revoke it if its secret was lost"
            )
        if lifetime is None:
            lifetime = Lifetime(lasts=None if old.expires_at is None else old.expires_at - old.created_at)
        key = new_key()
        facts = (old.tenant, old.name, key.digest, old.scopes)
        row = await connection.fetchrow(_SQL["insert"], key.id, *facts, lifetime.until, lifetime.lasts, ident)
        await connection.execute(_SQL["shorten"], ident, overlap)
        return key, _record(row), _record(await connection.fetchrow(_SQL["lock"], ident), ident)


def _record(row: asyncpg.Record | None, ident: str = "") -> KeyRecord:
    if row is None:
        raise ApiKeyError(f"there is no key {visible(ident)}; `octollm keys ls` lists all")
    values: dict[str, Any] = dict(row)
    now: datetime = values.pop("now")
    expired = values["expires_at"] is not None and values["expires_at"] <= now
    state = "revoked" if values["revoked_at"] is not None else "expired" if expired else "valid"
    return KeyRecord(**{**values, "scopes": tuple(values["scopes"]), "state": state})
