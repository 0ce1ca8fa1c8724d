"""Answers a question with sentences that stand in passages.

Pure, made of words only: it quotes, or says nothing.

A sentence is worth the share of the question's words it has, the rarer ones among the passages counting more; words of
its heading count half, and an earlier passage wins between equals.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from octollm.text.places import Span
from octollm.text.sentences import sentences
from octollm.text.words import names, terms

MAX_SENTENCES = 3
"""Sentences of an answer."""
_ENOUGH = 0.34
"""Share of the question a sentence must cover, with its heading; below it nothing was found."""
_MIN_SHARE = 0.6
"""Share of the best sentence's worth below which another sentence is left out."""
_HEADING = 0.5
_LONG = 400
"""Characters beyond which a sentence is no sentence but a list or a line of data."""


@dataclass(frozen=True, slots=True)
class Source:
    """A passage to quote from."""

    text: str
    heading: str = ""


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of a source."""

    source: int
    """Its index."""
    span: Span
    worth: float
    """From 0 to 1."""


@dataclass(frozen=True, slots=True)
class _Sentence:
    source: int
    span: Span
    own: frozenset[str]
    heading: frozenset[str]


def extract(question: str, sources: Sequence[Source], most: int = MAX_SENTENCES) -> list[Quote]:
    """The sentences that answer best, best first, none twice; empty where nothing speaks of what was asked."""
    asked = _about(question)
    candidates = list(_sentences(sources))
    spread = Counter(word for one in candidates for word in asked & (one.own | one.heading))
    weights = {word: math.log(1 + (len(candidates) + 1) / (spread[word] + 1)) for word in asked}
    whole = sum(weights.values())
    if not whole:
        return []
    quotes = [Quote(one.source, one.span, _worth(one, asked, weights) / whole) for one in candidates]
    quotes.sort(key=lambda quote: (-round(quote.worth, 6), quote.source, quote.span))
    if not quotes or quotes[0].worth < _ENOUGH:
        return []
    found: list[Quote] = []
    said: set[str] = set()
    for quote in quotes:
        text = sources[quote.source].text[quote.span.start : quote.span.end]
        if len(found) == most or quote.worth < _MIN_SHARE * quotes[0].worth:
            break
        if text not in said:
            found.append(quote)
            said.add(text)
    return found


def _about(text: str) -> frozenset[str]:
    return frozenset(terms(text)) | frozenset(names(text))


def _sentences(sources: Sequence[Source]) -> Iterator[_Sentence]:
    for number, source in enumerate(sources):
        heading = _about(source.heading)
        for span in sentences(source.text, Span(0, len(source.text))):
            text = source.text[span.start : span.end]
            if not text.startswith(("#", "```", "~~~", "|--", "| --", "|:-", "| :-")):
                yield _Sentence(number, span, _about(text), heading)


def _worth(one: _Sentence, asked: frozenset[str], weights: dict[str, float]) -> float:
    own = sum(weights[word] for word in asked & one.own)
    if not own:
        return 0.0
    nearby = sum(weights[word] for word in (asked & one.heading) - one.own)
    length = one.span.end - one.span.start
    return (own + _HEADING * nearby) * min(1.0, _LONG / length)
