"""Reciprocal rank fusion: makes one order of several without comparing their scores. Pure."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

K = 60
"""How slowly a rank loses its worth; the value of the paper that named the method (Cormack et al., 2009)."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Fused(Generic[Key]):
    """One thing that at least one leg found."""

    key: Key
    score: float
    ranks: Mapping[str, int]
    """By leg, from 1."""


def fuse(legs: Mapping[str, Sequence[Key]]) -> list[Fused[Key]]:
    """Best first. Of equals the one with the better best rank, then the one that an earlier leg found."""
    ranks: dict[Key, dict[str, int]] = {}
    for leg, keys in legs.items():
        for rank, key in enumerate(dict.fromkeys(keys), 1):
            ranks.setdefault(key, {})[leg] = rank
    fused = [Fused(key, sum(1 / (K + rank) for rank in found.values()), found) for key, found in ranks.items()]
    return sorted(fused, key=lambda one: (-one.score, min(one.ranks.values())))
