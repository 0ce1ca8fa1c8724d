"""What `octollm keys` does: one change of the table, then its publication."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg

from octollm.credentials import keys
from octollm.credentials.key import ApiKey, Scope
from octollm.credentials.keys import KeyRecord, Lifetime
from octollm.credentials.publisher import KeyPublisher
from octollm.database.migrate import revision_problem
from octollm.database.pool import Pool, acquired, open_pool
from octollm.errors import ApiKeyError, OctoError, StartError, StoreUnavailableError
from octollm.observability.logging import without_passwords
from octollm.protocol.key_registry import KeyRegistry
from octollm.runtime.connect_retry import ADVICE
from octollm.settings.loader import Settings
from octollm.settings.redis_url import redis_url

_ANSWER_S = 10.0


async def create_key(
    settings: Settings, tenant: str, scopes: Sequence[Scope], lifetime: Lifetime, name: str | None
) -> tuple[ApiKey, KeyRecord, str | None]:
    """Store a new key.

    Return the key, its record, and why Redis does not have it yet as a sentence, or None. Every function of this module
    raises ApiKeyError for what cannot be done, StoreUnavailableError while Postgres is unavailable, and StartError if
    the database has not been migrated.
    """
    async with _postgres(settings) as pool:
        key, record = await keys.create(pool, tenant, scopes, lifetime, name)
        return key, record, await _publish(settings, pool)


async def list_keys(settings: Settings, tenant: str | None, limit: int) -> list[KeyRecord]:
    """Return up to `limit` keys, newest first; `tenant`: only its keys."""
    async with _postgres(settings) as pool:
        return await keys.list_keys(pool, tenant, limit)


async def revoke_key(settings: Settings, ident: str) -> tuple[KeyRecord, bool, str | None]:
    """Revoke a key.

    Return its record, whether it was not revoked before, and why Redis does not know of it yet, or None.
    """
    async with _postgres(settings) as pool:
        record, changed = await keys.revoke(pool, ident)
        return record, changed, await _publish(settings, pool)


async def rotate_key(
    settings: Settings, ident: str, overlap: timedelta, lifetime: Lifetime | None
) -> tuple[ApiKey, KeyRecord, KeyRecord, str | None]:
    """Replace a key by a successor.

    Return the new key, its record, the old key's record, and why Redis does not have them yet, or None.
    """
    async with _postgres(settings) as pool:
        key, record, old = await keys.rotate(pool, ident, overlap, lifetime)
        return key, record, old, await _publish(settings, pool)


@asynccontextmanager
async def _postgres(settings: Settings) -> AsyncIterator[Pool]:
    dsn = settings.postgres.dsn
    pool = await open_pool(dsn, 1, _ANSWER_S, application_name="octollm-keys")
    try:
        async with acquired(pool, _ANSWER_S) as connection:
            problem = await revision_problem(connection)
        if problem is not None:
            raise StartError(problem)
        yield pool
    except StoreUnavailableError as error:
        raise StoreUnavailableError(
            f"{error.message} at {without_passwords(dsn)}; {ADVICE['Postgres']} (`octollm up` prints its own)"
        ) from error
    except asyncpg.DataError as error:
        raise ApiKeyError(f"Postgres refuses a value: {error}") from error
    finally:
        await pool.close()


async def _publish(settings: Settings, pool: Pool) -> str | None:
    registry = KeyRegistry(redis_url(settings.redis), settings.redis.connect_timeout_s)
    try:
        await KeyPublisher(pool, registry).publish()
    except OctoError as error:
        return (
            f"the database has the change, but it was not published ({error.message}); it takes effect when an "
            "orchestrator publishes it, within a second while one runs"
        )
    finally:
        await registry.close()
    return None
