"""Keyword search. The rare words of a query select the candidates, and all words rank them.

Postgres does not weigh words by their frequency, so this module does. Requiring all words, as websearch_to_tsquery
does, finds nothing for most questions; accepting any of them ranks half the table. `bench/relevance.py` compares the
methods.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.memory.frequencies import Frequencies
from octollm.text.words import names

_SQL = queries("octollm.memory", "search")
_PHRASE = re.compile(r'"([^"]{2,200})"')
_MAX_COUNTED = 1000
"""Counting the passages with a word stops here; the planner's statistics cover the words that are more common."""
_MAX_RANKED = 1000
"""Maximum number of passages to rank."""
_ENOUGH = 10
"""Number of passages found after which less likely candidates are not searched."""
_RANKING_WORDS = 12
"""How many words of the query, the rarest, are used in the ranking."""
_MAX_CONJUNCTION = 4
"""How many words are required together when all are common; each costs a scan."""
_MAX_WORDS = 32


@dataclass(frozen=True, slots=True)
class Where:
    """The filter of a search; None: no restriction."""

    tenant: str
    collection: str | None
    attributes: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class _Word:
    query: str
    """The word as a tsquery."""
    passages: int
    """Approximate number of passages with the word, at least 1."""


async def find(
    connection: Connection, frequencies: Frequencies, where: Where, query: str, limit: int
) -> list[UUID]:  # fmt: skip
    """Return ids of passages, best first. Passages that contain "quoted words" in this order come first."""
    words = await _words(connection, frequencies, where.tenant, query)
    if not words:
        return []
    counted = await connection.fetchval(_SQL["size"], where.tenant, where.collection, _MAX_COUNTED)
    size = max(counted, frequencies.passages)
    ranking_words = words[:_RANKING_WORDS]
    weights = [math.log(1 + size / word.passages) for word in ranking_words]
    phrases = [await connection.fetchval(_SQL["phrase"], phrase) for phrase in _PHRASE.findall(query)]
    found: list[UUID] = []
    for candidates in _candidates(words, [phrase for phrase in phrases if phrase]):
        if len(found) >= min(limit, _ENOUGH):
            break
        rows = await connection.fetch(
            _SQL["by_words"],
            where.tenant,
            where.collection,
            dict(where.attributes) if where.attributes else None,
            candidates,
            _MAX_RANKED,
            [word.query for word in ranking_words],
            weights,
            limit,
        )
        known = set(found)
        found += [row["id"] for row in rows if row["id"] not in known]
    return found[:limit]


async def _words(connection: Connection, frequencies: Frequencies, tenant: str, query: str) -> list[_Word]:
    """Return the words of the query that occur in some passage, rarest first."""
    rows = await connection.fetch(_SQL["words_of_query"], query)
    candidates = list(dict.fromkeys([*names(query)[: _MAX_WORDS // 2], *(row["lexeme"] for row in rows)]))[:_MAX_WORDS]
    if not candidates:
        return []
    await frequencies.refresh(connection)
    common = {word: count for word in candidates if (count := frequencies.of(word)) is not None}
    rare = [quote(word) for word in candidates if word not in common]
    counted = await connection.fetch(_SQL["frequencies"], tenant, rare, _MAX_COUNTED) if rare else []
    words = [_Word(quote(word), count) for word, count in common.items()]
    words += [_Word(row["word"], row["passages"]) for row in counted if row["passages"]]
    return sorted(words, key=lambda word: word.passages)


def quote(word: str) -> str:
    """Return `word` as a tsquery that matches exactly this word."""
    escaped = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _candidates(words: Sequence[_Word], phrases: Sequence[str]) -> list[str]:
    """Return tsqueries that select candidates, most selective first.

    The later ones run only if too little was found.
    """
    rare: list[str] = []
    total = 0
    for word in words:
        total += word.passages
        if total >= _MAX_RANKED:
            break
        rare.append(word.query)
    candidates = [" | ".join(rare)] if rare else []
    if not candidates:
        # All words are common: passages with several of them come first.
        first, *others = [word.query for word in words[:_MAX_CONJUNCTION]]
        candidates = [" & ".join([first, *others]), f"{first} & ({' | '.join(others)})" if others else first]
    candidates.append(" | ".join(word.query for word in words))
    together = [f"({' & '.join(phrases)})"] if phrases else []
    return list(dict.fromkeys([*together, *candidates]))
