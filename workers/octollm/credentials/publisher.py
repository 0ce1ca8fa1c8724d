"""Publishes the valid API keys to Redis, and copies back when they were used.

Every reflex reads them there.

What is published is a function of the table and of the time alone, so any number of processes may publish. Each state
of the table has a number that only grows; Redis takes no state with a lower number than the one it has. So a process
that read the table before a key was revoked, and writes after the revocation was published, changes nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

import orjson
import structlog

from octollm.credentials.snapshot import Snapshot, ValidKey, read_number, read_snapshot
from octollm.database.pool import Pool, acquired, transaction
from octollm.database.queries import queries
from octollm.periodic import PeriodicJob

_SQL = queries("octollm.credentials", "keys")
_PUBLISH_INTERVAL_S = 1.0
"""How often Redis is compared with the table. The command line also publishes what it has changed, at once."""
_LAST_USE_INTERVAL_S = 10.0
_log = structlog.get_logger(__name__)


class Registry(Protocol):
    """The keys in Redis; `octollm.protocol.key_registry` provides it.

    Every method raises StoreUnavailableError while Redis is unavailable, and StoreRefusedError if Redis refuses the
    command.
    """

    async def state(self) -> tuple[str | None, int, int]:
        """Return the published version (None: there is none), its number, and how many keys there are."""

    async def publish(self, number: int, version: str, records: Mapping[str, bytes]) -> int:
        """Replace all keys in one step unless a higher number is published; return the number that is."""

    async def last_uses(self) -> dict[str, int]:
        """Return when keys were last used: ms since 1970 by id."""

    async def delete_uses(self, ids: Sequence[str]) -> None:
        """Delete the times of keys that no longer exist."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What Redis has to hold."""

    snapshot: Snapshot
    version: str
    """Digest of `records`: the same keys always have the same version."""
    records: Mapping[str, bytes]
    """JSON by id, see `_as_json`."""

    @property
    def state(self) -> tuple[str, int, int]:
        """What `Registry.state` returns once it is published."""
        return self.version, self.snapshot.number, len(self.records)


class Result(Enum):
    """What publishing did."""

    CURRENT = "Redis had the keys"
    PUBLISHED = "Redis has the keys now"
    REPLACED = "Redis had keys of a later state than the table, which are replaced"


class KeyPublisher:
    """Any number of processes may publish at the same time."""

    def __init__(self, pool: Pool, registry: Registry) -> None:
        self._pool = pool
        self._registry = registry
        self._published: Publication | None = None

    def jobs(self) -> list[PeriodicJob]:
        """Return the jobs of a process that keeps Redis up to date."""
        return [
            PeriodicJob("publish API keys", _PUBLISH_INTERVAL_S, self.run),
            PeriodicJob("copy the last uses of API keys", _LAST_USE_INTERVAL_S, self.copy_last_uses),
        ]

    async def run(self) -> bool:
        """Publish the keys if Redis does not have them, and log that; return whether it did not have them.

        Raises StoreUnavailableError while Redis or Postgres is unavailable.
        """
        known = self._published
        if known is not None:
            async with acquired(self._pool) as connection:
                current = known.snapshot.is_current(*await read_number(connection))
            if current and await self._registry.state() == known.state:
                return False
        result = await self.publish()
        if result is Result.REPLACED:
            _log.warning("replaced API keys of a later state than the database has; was it restored from a backup?")
        elif result is Result.PUBLISHED:
            _log.info("published API keys")
        return result is not Result.CURRENT

    async def publish(self) -> Result:
        """Read the table and publish its keys if Redis does not have them. Raises what `run` raises."""
        publication = await self._read()
        if await self._registry.state() == publication.state:
            self._published = publication
            return Result.CURRENT
        newest = await self._write(publication)
        if newest <= publication.snapshot.number:
            return Result.PUBLISHED
        # Redis heard of a later state after this one was read, or the database was restored from a backup.
        async with transaction(self._pool) as connection:
            exceeded = await connection.execute(_SQL["exceed"], newest)
        await self._write(await self._read())
        return Result.REPLACED if exceeded == "UPDATE 1" else Result.PUBLISHED

    async def _read(self) -> Publication:
        async with acquired(self._pool) as connection:
            return publication_of(await read_snapshot(connection))

    async def _write(self, publication: Publication) -> int:
        """Publish, and return the number that Redis has now."""
        number = publication.snapshot.number
        newest = await self._registry.publish(number, publication.version, publication.records)
        self._published = publication if newest == number else None
        return newest

    async def copy_last_uses(self) -> None:
        """Copy from Redis when keys were last used. Raises what `run` raises."""
        used = await self._registry.last_uses()
        if not used:
            return
        ids = list(used)
        times = [datetime.fromtimestamp(used[ident] / 1000, UTC) for ident in ids]
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["set_last_used"], ids, times)
            existing = {row["id"] for row in await connection.fetch(_SQL["existing"], ids)}
        gone = [ident for ident in ids if ident not in existing]
        if gone:
            await self._registry.delete_uses(gone)


def publication_of(snapshot: Snapshot) -> Publication:
    """Return what Redis has to hold for these keys."""
    records = {key.id: _as_json(key) for key in snapshot.keys}
    content = hashlib.sha256()
    for ident, record in records.items():
        content.update(f"{ident} ".encode() + record + b"\n")
    return Publication(snapshot, content.hexdigest(), records)


def _as_json(key: ValidKey) -> bytes:
    """Return what Redis has about a key; the reflex reads it (`reflex-rs/src/auth/`)."""
    expires_at_ms = None if key.expires_at is None else int(key.expires_at.timestamp() * 1000)
    return orjson.dumps(
        {"tenant": key.tenant, "hash": key.hash.hex(), "scopes": sorted(key.scopes), "expires_at_ms": expires_at_ms}
    )
