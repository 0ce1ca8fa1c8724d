"""Finds passages by their words: the rare ones of a query decide which are looked at, all of them how these are ranked.

Postgres neither knows how frequent words are nor weighs them in a ranking; both is made up for here. Asking for all
words, as websearch_to_tsquery does, finds nothing for most questions; asking for any of them ranks half the table.
`bench/relevance.py` compares the ways.
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
_COUNTED = 1000
"""Passages with a word beyond which they are not counted; the statistics know the words that are more common."""
_RANKED = 1000
"""Passages that are ranked: each costs a look at its words."""
_ENOUGH = 10
"""Passages with which nothing less likely is looked at any more."""
_TELLING = 12
"""Words of the query that count in the ranking, the rarest."""
_TOGETHER = 4
"""Words that are asked for together where all are common: each costs a scan."""
_MOST_WORDS = 32


@dataclass(frozen=True, slots=True)
class Where:
    """What a search is limited to."""

    tenant: str
    collection: str | None
    attributes: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class _Word:
    query: str
    """As a tsquery."""
    passages: int
    """About how many have it, at least 1."""


async def find(
    connection: Connection, frequencies: Frequencies, where: Where, query: str, limit: int
) -> list[UUID]:  # fmt: skip
    """Ids of passages, best first. What has "quoted words" in just this order comes before all else."""
    words = await _words(connection, frequencies, where.tenant, query)
    if not words:
        return []
    seen = await connection.fetchval(_SQL["size"], where.tenant, where.collection, _COUNTED)
    size = max(seen, frequencies.passages)
    telling = words[:_TELLING]
    worth = [math.log(1 + size / word.passages) for word in telling]
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
            _RANKED,
            [word.query for word in telling],
            worth,
            limit,
        )
        known = set(found)
        found += [row["id"] for row in rows if row["id"] not in known]
    return found[:limit]


async def _words(connection: Connection, frequencies: Frequencies, tenant: str, query: str) -> list[_Word]:
    """The query's words that stand anywhere, rarest first."""
    rows = await connection.fetch(_SQL["words_of_query"], query)
    asked = list(dict.fromkeys([*names(query)[: _MOST_WORDS // 2], *(row["lexeme"] for row in rows)]))[:_MOST_WORDS]
    if not asked:
        return []
    await frequencies.refresh(connection)
    common = {word: count for word in asked if (count := frequencies.of(word)) is not None}
    rare = [quote(word) for word in asked if word not in common]
    counted = await connection.fetch(_SQL["frequencies"], tenant, rare, _COUNTED) if rare else []
    words = [_Word(quote(word), count) for word, count in common.items()]
    words += [_Word(row["word"], row["passages"]) for row in counted if row["passages"]]
    return sorted(words, key=lambda word: word.passages)


def quote(word: str) -> str:
    """A word as a tsquery that means only it."""
    escaped = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _candidates(words: Sequence[_Word], phrases: Sequence[str]) -> list[str]:
    """Queries for what to rank, in the order in which they are asked until enough is found."""
    rare: list[str] = []
    total = 0
    for word in words:
        total += word.passages
        if total >= _RANKED:
            break
        rare.append(word.query)
    asked = [" | ".join(rare)] if rare else []
    if not asked:
        # Even the rarest is common: what has several of them comes first.
        first, *others = [word.query for word in words[:_TOGETHER]]
        asked = [" & ".join([first, *others]), f"{first} & ({' | '.join(others)})" if others else first]
    asked.append(" | ".join(word.query for word in words))
    together = [f"({' & '.join(phrases)})"] if phrases else []
    return list(dict.fromkeys([*together, *asked]))
