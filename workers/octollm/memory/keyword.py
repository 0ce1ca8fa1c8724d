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
from octollm.text.words import names

_SQL = queries("octollm.memory", "recall")
_PHRASE = re.compile(r'"([^"]{2,200})"')
_COUNTED = 500
"""Passages with a word beyond which it is only known to be common."""
_COMMON = 4 * _COUNTED
"""Passages such a word is taken to stand in."""
_SIZE = 8 * _COUNTED
_RANKED = 1000
"""Passages that are ranked: each costs a look at its words."""
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


async def find(connection: Connection, where: Where, query: str, limit: int) -> list[UUID]:
    """Ids of passages, best first. What has "quoted words" in just this order comes before all else."""
    words = await _words(connection, where.tenant, query)
    if not words:
        return []
    size = await connection.fetchval(_SQL["size"], where.tenant, where.collection, _SIZE)
    worth = [math.log(1 + size / _estimate(word)) for word in words]
    phrases = [await connection.fetchval(_SQL["phrase"], phrase) for phrase in _PHRASE.findall(query)]
    found: list[UUID] = []
    for candidates in _candidates(words, [phrase for phrase in phrases if phrase]):
        if len(found) >= limit:
            break
        rows = await connection.fetch(
            _SQL["by_words"],
            where.tenant,
            where.collection,
            dict(where.attributes) if where.attributes else None,
            candidates,
            _RANKED,
            [word.query for word in words],
            worth,
            limit,
        )
        found += [row["id"] for row in rows if row["id"] not in found]
    return found[:limit]


async def _words(connection: Connection, tenant: str, query: str) -> list[_Word]:
    """The query's words that stand anywhere, rarest first."""
    rows = await connection.fetch(_SQL["words_of_query"], query)
    asked = dict.fromkeys([*names(query)[: _MOST_WORDS // 2], *(row["lexeme"] for row in rows)])
    if not asked:
        return []
    quoted = [quote(word) for word in list(asked)[:_MOST_WORDS]]
    counts = await connection.fetch(_SQL["frequencies"], tenant, quoted, _COUNTED)
    return sorted((_Word(row["word"], row["passages"]) for row in counts if row["passages"]), key=lambda w: w.passages)


def quote(word: str) -> str:
    """A word as a tsquery that means only it."""
    escaped = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def _estimate(word: _Word) -> int:
    return word.passages if word.passages < _COUNTED else _COMMON


def _candidates(words: Sequence[_Word], phrases: Sequence[str]) -> list[str]:
    """Queries for what to rank, in the order in which they are asked until enough is found."""
    rare: list[str] = []
    total = 0
    for word in words:
        if rare and total + word.passages > _RANKED:
            break
        rare.append(word.query)
        total += word.passages
    asked = [" | ".join(rare)]
    if total > _RANKED:
        # Even the rarest is common: what has all of them first, then what has it and another.
        others = [word.query for word in words[1:]]
        asked = [" & ".join([rare[0], *others]), f"{rare[0]} & ({' | '.join(others)})" if others else "", rare[0]]
    together = [f"({' & '.join(phrases)})"] if phrases else []
    return [*together, *dict.fromkeys(filter(None, asked))]
