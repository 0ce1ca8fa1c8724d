"""How common words are, by the statistics of Postgres' planner: counting a common word would cost a scan."""

import time
from collections.abc import Mapping

from octollm.database.pool import Connection
from octollm.database.queries import queries

_SQL = queries("octollm.memory", "search")
_KEPT_S = 300.0


class Frequencies:
    """The commonest thousand words of all passages, looked up every five minutes; none before the first ANALYZE."""

    def __init__(self) -> None:
        self._passages = 0.0
        self._shares: Mapping[str, float] = {}
        self._until = 0.0

    async def refresh(self, connection: Connection) -> None:
        """Look them up again where they are old."""
        now = time.monotonic()
        if now < self._until:
            return
        row = await connection.fetchrow(_SQL["statistics"])
        # More frequencies than words: the last ones are bounds.
        pairs = zip(row["words"] or (), row["shares"] or (), strict=False) if row else ()
        self._shares = dict(pairs)
        self._passages = max(0.0, row["passages"]) if row else 0.0
        # A young table is looked at again at each search: it gets its statistics soon.
        self._until = now + _KEPT_S if self._shares else 0.0

    @property
    def passages(self) -> int:
        """About how many there are of all tenants."""
        return int(self._passages)

    def of(self, word: str) -> int | None:
        """In about how many passages a lexeme stands; None where it is not common."""
        share = self._shares.get(word)
        return None if share is None else max(1, int(share * self._passages))
