"""The valid API keys at one moment, as every process that checks or publishes them reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.errors import StoreUnavailableError

_SQL = queries("octollm.credentials", "keys")


@dataclass(frozen=True, slots=True)
class ValidKey:
    """A key that is neither revoked nor expired."""

    id: str
    tenant: str
    hash: bytes
    """SHA-256 of the whole key."""
    scopes: frozenset[str]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All valid keys."""

    number: int
    """Of the table's state: higher after each change."""
    read_at: datetime
    """By Postgres's clock."""
    keys: Sequence[ValidKey]

    @property
    def next_expiry(self) -> datetime | None:
        """When the first of the keys expires; None: never."""
        return min((key.expires_at for key in self.keys if key.expires_at is not None), default=None)

    def is_current(self, number: int, now: datetime) -> bool:
        """Whether it still holds at `now`, when the table's state has this `number`."""
        return self.number == number and (self.next_expiry is None or now < self.next_expiry)


async def read_number(connection: Connection) -> tuple[int, datetime]:
    """Return the number of the table's state and the time by Postgres's clock. Cheap."""
    row = await connection.fetchrow(_SQL["state"])
    if row is None:
        raise StoreUnavailableError(
            "Postgres: the table api_key_changes has lost its row; insert a number above the last"
        )
    return row["number"], row["now"]


async def read_snapshot(connection: Connection) -> Snapshot:
    """Read the keys that are valid now, sorted by id."""
    rows = await connection.fetch(_SQL["snapshot"])
    if not rows:
        await read_number(connection)
    keys = [
        ValidKey(row["id"], row["tenant"], row["hash"], frozenset(row["scopes"]), row["expires_at"])
        for row in rows
        if row["id"] is not None
    ]
    return Snapshot(rows[0]["number"], rows[0]["now"], keys)
