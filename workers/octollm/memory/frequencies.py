"""Frequencies of words, from the statistics of Postgres' planner.

Counting a common word would need a scan.
"""

import time
from collections.abc import Mapping

from octollm.database.pool import Connection
from octollm.database.queries import queries

_SQL = queries("octollm.memory", "search")
_TTL_S = 300.0


class Frequencies:
    """The thousand most common words of all passages, refreshed every five minutes.

    Empty before the first ANALYZE.
    """

    def __init__(self) -> None:
        self._passages = 0.0
        self._shares: Mapping[str, float] = {}
        self._until = 0.0

    async def refresh(self, connection: Connection) -> None:
        """Load the statistics again if they are older than five minutes."""
        now = time.monotonic()
        if now < self._until:
            return
        row = await connection.fetchrow(_SQL["statistics"])
        # There are more frequencies than words: the last ones are bounds.
        pairs = zip(row["words"] or (), row["shares"] or (), strict=False) if row else ()
        self._shares = dict(pairs)
        self._passages = max(0.0, row["passages"]) if row else 0.0
        # A new table gets its statistics soon, so they are loaded at every search until then.
        self._until = now + _TTL_S if self._shares else 0.0

    @property
    def passages(self) -> int:
        """Approximate number of passages of all tenants."""
        return int(self._passages)

    def of(self, word: str) -> int | None:
        """Return the approximate number of passages with a lexeme; None if it is not common."""
        share = self._shares.get(word)
        return None if share is None else max(1, int(share * self._passages))
