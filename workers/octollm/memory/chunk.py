"""Cuts a document into passages: sections, code blocks, tables and definitions stay whole where they fit.

Pure. Passages do not overlap: each is cited by its place and carries its headings, and a text that stood in two of them
would be found twice. Every character that is no white space lies in exactly one passage.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from octollm.memory.blocks import Block, code_blocks, markdown_blocks, text_blocks
from octollm.text.places import Lines, Span, trimmed
from octollm.text.sentences import sentences

Count = Callable[[Sequence[str]], Sequence[int]]
"""Tokens of each text."""
Media = Literal["markdown", "text", "code"]
_BLOCKS = {"markdown": markdown_blocks, "text": text_blocks, "code": code_blocks}


@dataclass(frozen=True, slots=True)
class Chunk:
    """One passage of a text; `text` is exactly what stands from `start` to `end`."""

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
    """Begins a code block or table that had to be cut: not to be mixed with what stands above."""


def chunks(text: str, media: Media, count: Count, longest: int) -> list[Chunk]:
    """The passages of a text, in order, none of more than `longest` tokens (at least 1) by `count`.

    One character alone may count for more than `longest`; it is a passage all the same.
    """
    blocks = _BLOCKS[media](text)
    tokens = count([text[block.span.start : block.span.end] for block in blocks])
    pieces: list[_Piece] = []
    room = longest
    for block, number in zip(blocks, tokens, strict=True):
        if number <= room:
            pieces.append(_Piece(block.span, block.section, block.heading, number))
        else:
            pieces += _cut(text, block, count, room, after_heading=room < longest)
        # A heading is no passage by itself: what follows it is cut so that both fit.
        room = max(room - number, (longest + 1) // 2) if block.head else longest
    lines = Lines(text)
    return [
        Chunk(*_both(span), *lines.of(span), text[span.start : span.end], heading, number)
        for span, heading, number in _packed(text, pieces, count, longest)
    ]


def _both(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _cut(text: str, block: Block, count: Count, longest: int, *, after_heading: bool) -> list[_Piece]:
    """A block that is too long: by sentences or lines, what is still too long by words, then in halves."""
    found: list[_Piece] = []
    todo = [(span, 0) for span in _parts(text, block, block.span, 0)]
    while todo:
        tokens = count([text[span.start : span.end] for span, _ in todo])
        again: list[tuple[Span, int]] = []
        for (span, level), number in zip(todo, tokens, strict=True):
            if number <= longest or span.end - span.start == 1:
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
    # At the space nearest to the middle from the left, if there is one in this half.
    space = max(text.rfind(" ", span.start + 1, middle), text.rfind("\n", span.start + 1, middle))
    at = space + 1 if space >= 0 else middle
    for half in (Span(span.start, at), Span(at, span.end)):
        part = trimmed(text, half)
        if part is not None:
            yield part


def _lines(text: str, span: Span) -> Iterator[Span]:
    """Lines that are not blank, with their indentation: in code it has a meaning."""
    begin = span.start
    for line in text[span.start : span.end].splitlines(keepends=True):
        end = begin + len(line)
        if line.strip():
            yield Span(begin, begin + len(line.rstrip()))
        begin = end


def _packed(text: str, pieces: Sequence[_Piece], count: Count, longest: int) -> Iterator[tuple[Span, str, int]]:
    """Neighbours of one section together as long as they fit."""
    group: list[_Piece] = []
    sizes = 0
    for piece in pieces:
        apart = piece.alone or bool(group and piece.section != group[-1].section)
        if group and (apart or sizes + piece.tokens > longest):
            yield from _checked(text, group, count, longest)
            group, sizes = [], 0
        group.append(piece)
        sizes += piece.tokens
    if group:
        yield from _checked(text, group, count, longest)


def _checked(text: str, group: list[_Piece], count: Count, longest: int) -> Iterator[tuple[Span, str, int]]:
    """The group as one; a tokenizer may find more in the whole than in its parts, then as two."""
    span = Span(group[0].span.start, group[-1].span.end)
    number = group[0].tokens if len(group) == 1 else count([text[span.start : span.end]])[0]
    if number <= longest or len(group) == 1:
        yield span, group[-1].heading, number
        return
    half = len(group) // 2
    yield from _checked(text, group[:half], count, longest)
    yield from _checked(text, group[half:], count, longest)
