"""Where sentences begin and end.

Plain rules for prose, lists and tables; no language model, no list of names.
"""

import re
from collections.abc import Iterator

from octollm.text.places import Span, trimmed

# A full stop ends a sentence only before a space and something that can begin one: not in 3.11, e.g. or octollm.toml.
_END = re.compile(r"(?<=[.!?])[\"')\]*_`]*\s+(?=[\"'(\[*_`]|[^\W_a-z])|(?<=[!?])\s+|\n[ \t]*\n")
_SHORT = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|no|fig|dr|mr|mrs|ms|st|etc|approx)|\b[A-Z])\.$", re.IGNORECASE)
# Each item of a list and each row of a table speaks for itself.
_ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+]|[0-9]{1,3}[.)])[ \t]|[ \t]*\|)|(?<=\|)[ \t]*\n")


def sentences(text: str, within: Span) -> Iterator[Span]:
    """The sentences of a part of a text, without the white space between them."""
    for block in _cut(text, within, _ITEM):
        begin = block.start
        for end in _END.finditer(text, block.start, block.end):
            if end[0].count("\n") < 2 and _SHORT.search(text, begin, end.start()):
                continue
            found = trimmed(text, Span(begin, end.end()))
            if found is not None:
                yield found
            begin = end.end()
        found = trimmed(text, Span(begin, block.end))
        if found is not None:
            yield found


def _cut(text: str, within: Span, where: re.Pattern[str]) -> Iterator[Span]:
    begin = within.start
    for found in where.finditer(text, within.start, within.end):
        yield Span(begin, found.end())
        begin = found.end()
    yield Span(begin, within.end)
