"""Split a text into blocks: paragraphs, code blocks, tables, definitions, each with its section.

Pure.
"""

import re
from dataclasses import dataclass

from octollm.text.places import Lines, Span, trimmed

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*\r?\n?\Z")
_UNDERLINE = re.compile(r" {0,3}(?:(=+)|(-{2,}))[ \t]*\r?\n?\Z")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})([^\n]*)")
_MARKED = re.compile(r"[ \t]*(?:[-*+>|]|[0-9]{1,3}[.)])[ \t|]?")
HEADING_JOIN = " > "


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a text that is not split if it fits into a passage."""

    span: Span
    section: int
    """Number of the section. Blocks of different sections never share a passage."""
    heading: str
    prose: bool
    """Whether a block that is too long is split at sentences; otherwise at lines."""
    head: bool = False
    """Whether it is a heading. The block after a heading must leave space for it."""


def text_blocks(text: str) -> list[Block]:
    """Return the paragraphs of a plain text; blank lines separate them."""
    return [Block(span, 0, "", prose=True) for span in _paragraphs(text, Lines(text).spans(len(text)))]


def code_blocks(text: str) -> list[Block]:
    """Return the top-level definitions of a program, each with the comments and decorators directly above it."""
    found: list[Block] = []
    begin = end = -1
    blank = True
    for line in Lines(text).spans(len(text)):
        words = text[line.start : line.end]
        if not words.strip():
            blank = True
            continue
        # A closing bracket at the start of a line does not begin a definition.
        if begin >= 0 and blank and not words[0].isspace() and words[0] not in ")]}":
            found.append(Block(Span(begin, end), 0, "", prose=False))
            begin = -1
        if begin < 0:
            begin = line.start
        end, blank = line.start + len(words.rstrip()), False
    if begin >= 0:
        found.append(Block(Span(begin, end), 0, "", prose=False))
    return found


def markdown_blocks(text: str) -> list[Block]:
    """Return the headings, paragraphs, lists, tables and code blocks of a Markdown text.

    A heading without text of its own belongs to the section below it.
    """
    reader = _Markdown(text)
    for line in Lines(text).spans(len(text)):
        reader.take(line)
    reader.close()
    return reader.blocks


class _Markdown:
    """A reader that is given line by line; `blocks` holds the finished blocks."""

    def __init__(self, text: str) -> None:
        self.blocks: list[Block] = []
        self._text = text
        self._path: list[tuple[int, str]] = []
        self._section = 0
        self._bare = True
        """Whether the section contains only headings so far."""
        self._open: list[Span] = []
        self._kind = ""
        self._fence = ""

    def take(self, line: Span) -> None:
        """Process the next line."""
        words = self._text[line.start : line.end]
        fence = _FENCE.match(words)
        if self._fence:
            self._open.append(line)
            closes = fence and fence[1].startswith(self._fence) and not fence[2].strip()
            if closes:
                self._fence = ""
                self.close()
        elif fence and not (fence[1][0] == "`" and "`" in fence[2]):
            self.close()
            self._open, self._kind, self._fence = [line], "code", fence[1]
        elif heading := _HEADING.match(words):
            self.close()
            self._head(line, len(heading[1]), heading[2] or "")
        elif self._kind == "prose" and len(self._open) == 1 and (under := _UNDERLINE.match(words)):
            above = self._open.pop()
            title = self._text[above.start : above.end]
            self._head(Span(above.start, line.end), 1 if under[1] else 2, title)
        elif not words.strip():
            self.close()
        else:
            self._plain(line, words)

    def _plain(self, line: Span, words: str) -> None:
        if words.lstrip().startswith("|"):
            kind = "table"
        elif self._kind in {"prose", "list"}:
            kind = self._kind
        else:
            kind = "list" if _MARKED.match(words) else "prose"
        if kind != self._kind:
            self.close()
        self._kind = kind
        self._open.append(line)

    def _head(self, line: Span, level: int, title: str) -> None:
        self._path = [one for one in self._path if one[0] < level] + [(level, title.strip())]
        if not self._bare:
            self._section += 1
        self._bare = True
        self._put(line, prose=False, head=True)

    def close(self) -> None:
        """Finish the open block, if there is one."""
        if self._open:
            self._bare = False
            self._put(Span(self._open[0].start, self._open[-1].end), prose=self._kind in {"prose", "list"})
        self._open, self._kind, self._fence = [], "", ""

    def _put(self, span: Span, *, prose: bool, head: bool = False) -> None:
        whole = trimmed(self._text, span)
        if whole is not None:
            # Keep the indentation: it has a meaning in Markdown and code.
            start = self._text.rfind("\n", span.start, whole.start) + 1 or span.start
            heading = HEADING_JOIN.join(title for _, title in self._path if title)
            self.blocks.append(Block(Span(start, whole.end), self._section, heading, prose, head))


def _paragraphs(text: str, lines: list[Span]) -> list[Span]:
    found: list[Span] = []
    begin = -1
    for line in [*lines, Span(len(text), len(text))]:
        blank = not text[line.start : line.end].strip()
        if blank and begin >= 0:
            whole = trimmed(text, Span(begin, line.start))
            if whole is not None:
                found.append(whole)
            begin = -1
        elif not blank and begin < 0:
            begin = line.start
    return found
