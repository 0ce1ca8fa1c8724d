"""Splits a document into passages.

Sections, code blocks, tables and definitions stay whole if they fit. Pure.

Every character that is not white space is in exactly one passage. Passages do not overlap, because a text in two of
them would be found twice; each has its headings and its position in the document.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from octollm.memory.blocks import Block, code_blocks, markdown_blocks, text_blocks
from octollm.text.places import Lines, Span, trimmed
from octollm.text.sentences import sentences

Count = Callable[[Sequence[str]], Sequence[int]]
"""Counts the tokens of each text."""
Media = Literal["markdown", "text", "code"]
_BLOCKS = {"markdown": markdown_blocks, "text": text_blocks, "code": code_blocks}


@dataclass(frozen=True, slots=True)
class Chunk:
    """One passage of a document; `text` is exactly the text from `start` to `end`."""

    start: int
    end: int
    first_line: int
    last_line: int
    text: str
    heading: str
    tokens: int


@dataclass(frozen=True, slots=True)
class _Piece:
    span: Span
    section: int
    heading: str
    tokens: int
    alone: bool = False
    """Whether it starts a code block or table that had to be split; it is not merged with the piece above."""


def chunks(text: str, media: Media, count: Count, max_tokens: int) -> list[Chunk]:
    """Return the passages of a text in order, each of at most `max_tokens` (1 or more) by `count`.

    A single character that counts for more than `max_tokens` is a passage nevertheless.
    """
    blocks = _BLOCKS[media](text)
    tokens = count([text[block.span.start : block.span.end] for block in blocks])
    pieces: list[_Piece] = []
    available = max_tokens
    for block, number in zip(blocks, tokens, strict=True):
        if number <= available:
            pieces.append(_Piece(block.span, block.section, block.heading, number))
        else:
            pieces += _cut(text, block, count, available, after_heading=available < max_tokens)
        # A heading is never a passage of its own: the next block is split so that both fit.
        available = max(available - number, (max_tokens + 1) // 2) if block.head else max_tokens
    lines = Lines(text)
    return [
        Chunk(span.start, span.end, *lines.of(span), text[span.start : span.end], heading, number)
        for span, heading, number in _packed(text, pieces, count, max_tokens)
    ]


def _cut(text: str, block: Block, count: Count, max_tokens: int, *, after_heading: bool) -> list[_Piece]:
    """Split a block that is too long: at sentences or lines, then at spaces, then in halves."""
    found: list[_Piece] = []
    todo = [(span, 0) for span in _parts(text, block, block.span, 0)]
    while todo:
        tokens = count([text[span.start : span.end] for span, _ in todo])
        again: list[tuple[Span, int]] = []
        for (span, level), number in zip(todo, tokens, strict=True):
            if number <= max_tokens or span.end - span.start == 1:
                found.append(_Piece(span, block.section, block.heading, number))
            else:
                again += [(part, level + 1) for part in _parts(text, block, span, level + 1)]
        todo = again
    found.sort(key=lambda piece: piece.span)
    if not block.prose and not after_heading:
        found[0] = replace(found[0], alone=True)
    return found


def _parts(text: str, block: Block, span: Span, level: int) -> Iterator[Span]:
    if level == 0 and block.prose:
        yield from sentences(text, span)
        return
    if level == 0:
        yield from _lines(text, span)
        return
    middle = (span.start + span.end) // 2
    # Split at the last space before the middle, if there is one in this half.
    space = max(text.rfind(" ", span.start + 1, middle), text.rfind("\n", span.start + 1, middle))
    at = space + 1 if space >= 0 else middle
    for half in (Span(span.start, at), Span(at, span.end)):
        part = trimmed(text, half)
        if part is not None:
            yield part


def _lines(text: str, span: Span) -> Iterator[Span]:
    """Yield the lines that are not blank, with their indentation, which has a meaning in code."""
    begin = span.start
    for line in text[span.start : span.end].splitlines(keepends=True):
        end = begin + len(line)
        if line.strip():
            yield Span(begin, begin + len(line.rstrip()))
        begin = end


def _packed(text: str, pieces: Sequence[_Piece], count: Count, max_tokens: int) -> Iterator[tuple[Span, str, int]]:
    """Merge consecutive pieces of one section as long as they fit."""
    group: list[_Piece] = []
    sizes = 0
    for piece in pieces:
        apart = piece.alone or bool(group and piece.section != group[-1].section)
        if group and (apart or sizes + piece.tokens > max_tokens):
            yield from _merged(text, group, count, max_tokens)
            group, sizes = [], 0
        group.append(piece)
        sizes += piece.tokens
    if group:
        yield from _merged(text, group, count, max_tokens)


def _merged(text: str, group: list[_Piece], count: Count, max_tokens: int) -> Iterator[tuple[Span, str, int]]:
    """Yield the group as one passage, or as two if the tokenizer counts more than for its parts."""
    span = Span(group[0].span.start, group[-1].span.end)
    number = group[0].tokens if len(group) == 1 else count([text[span.start : span.end]])[0]
    if number <= max_tokens or len(group) == 1:
        yield span, group[-1].heading, number
        return
    half = len(group) // 2
    yield from _merged(text, group[:half], count, max_tokens)
    yield from _merged(text, group[half:], count, max_tokens)
