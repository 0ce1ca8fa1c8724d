"""Reciprocal rank fusion: combines several rankings without comparing their scores. Pure."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = 60
"""Smoothing constant; the value of the paper that introduced the method (Cormack et al., 2009)."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Ranked(Generic[Key]):
    """An item that at least one ranking contains."""

    key: Key
    score: float
    ranks: Mapping[str, int]
    """Rank by the name of the ranking, from 1."""


def merge_ranks(rankings: Mapping[str, Sequence[Key]]) -> list[Ranked[Key]]:
    """Return all items of `rankings` (by name, best first), best first.

    Items with equal scores are ordered by their best rank, then by the order of the rankings.
    """
    ranks: dict[Key, dict[str, int]] = {}
    for name, keys in rankings.items():
        for rank, key in enumerate(dict.fromkeys(keys), 1):
            ranks.setdefault(key, {})[name] = rank
    ranked = [Ranked(key, sum(1 / (K + rank) for rank in found.values()), found) for key, found in ranks.items()]
    return sorted(ranked, key=lambda one: (-one.score, min(one.ranks.values())))
