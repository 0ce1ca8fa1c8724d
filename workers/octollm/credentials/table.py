"""The valid API keys in memory, so that checking one asks no store.

The table is compared with Postgres a few times a second. When that has failed for some seconds, no key is accepted,
since one may have been revoked meanwhile.
"""

import hmac
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import structlog

from octollm.credentials.caller import Caller
from octollm.credentials.key import digest, id_of
from octollm.credentials.snapshot import Snapshot, ValidKey, read_number, read_snapshot
from octollm.database.pool import Pool, acquired, transaction
from octollm.database.queries import queries
from octollm.errors import CredentialError, CredentialsUnavailableError, StatementTimeoutError, StoreUnavailableError
from octollm.periodic import PeriodicJob

_SQL = queries("octollm.credentials", "keys")
_INTERVAL_S = 0.3
_REPORT_INTERVAL_S = 10.0
_TRUSTED_S = 3.0
"""How long the table is used without a successful comparison."""
_ACQUIRE_S = 1.0
_NO_HASH = bytes(32)
_log = structlog.get_logger(__name__)


class KeyTable:
    """One process's copy of the valid keys. `jobs` keep it up to date."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        """`pool`: for this table alone, so that no slow query delays it. `clock`: monotonic, in seconds."""
        self._pool = pool
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._keys: Mapping[str, ValidKey] = {}
        self._compared: tuple[float, datetime] | None = None
        """The last comparison, by the clock and by Postgres's."""
        self._available = True
        self._used: dict[str, datetime] = {}
        """When keys were last used, by id, since the last report."""

    def jobs(self) -> list[PeriodicJob]:
        """Return what has to run for as long as the table is used."""
        return [
            PeriodicJob("read API keys", _INTERVAL_S, self.refresh),
            PeriodicJob("store the last uses of API keys", _REPORT_INTERVAL_S, self.report_uses),
        ]

    async def refresh(self) -> None:
        """Compare with Postgres, and read the keys again if they have changed.

        Failures are logged, once per outage.
        """
        began = self._clock()
        try:
            async with acquired(self._pool, _ACQUIRE_S) as connection:
                number, now = await read_number(connection)
                if self._snapshot is None or not self._snapshot.is_current(number, now):
                    self._snapshot = await read_snapshot(connection)
                    self._keys = {key.id: key for key in self._snapshot.keys}
        except (StoreUnavailableError, StatementTimeoutError) as error:
            if self._available:
                _log.warning("API keys cannot be read", error=error.message)
            self._available = False
            return
        self._available = True
        self._compared = began, now

    def caller_of(self, text: str) -> Caller:
        """Return the caller whose key `text` is.

        Raises CredentialsUnavailableError while the table may be out of date, and CredentialError. That error does not
        tell a revoked key from an unknown or an altered one.
        """
        problem = self.problem()
        if problem is not None:
            raise CredentialsUnavailableError(problem)
        key = self._keys.get(id_of(text) or "")
        if not hmac.compare_digest(digest(text), _NO_HASH if key is None else key.hash) or key is None:
            raise CredentialError("invalid_credential", "the API key is not valid; check it, or ask for a new one")
        if key.expires_at is not None and key.expires_at <= self.now():
            raise CredentialError("expired_credential", "the API key has expired; ask for a new one")
        self._used[key.id] = self.now()
        return Caller(key.tenant, key.scopes)

    async def report_uses(self) -> None:
        """Store when keys were last used.

        Raises StoreUnavailableError; then the next call stores the same and what came after.
        """
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with transaction(self._pool) as connection:
                await connection.execute(_SQL["set_last_used"], list(used), list(used.values()))
        except BaseException:
            self._used = used | self._used
            raise

    def problem(self) -> str | None:
        """Return why no key can be checked now, as a sentence; None: it can."""
        if self._compared is None:
            return "the API keys were not read from Postgres yet"
        age_s = self._clock() - self._compared[0]
        if age_s > _TRUSTED_S:
            return f"the API keys could not be read from Postgres for {age_s:.0f} s"
        return None

    def now(self) -> datetime:
        """Return the time by Postgres's clock; before the first comparison, by this host's."""
        if self._compared is None:
            return datetime.now(UTC)
        at, time_there = self._compared
        return datetime.fromtimestamp(time_there.timestamp() + self._clock() - at, UTC)
