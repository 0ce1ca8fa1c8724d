"""Places in a text: a span of characters, its lines, and what of it is not white space."""

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters `start` to `end` of a text, counted in code points from 0, the end exclusive."""

    start: int
    end: int


class Lines:
    """Line numbers of a text's characters. A line ends with a line feed."""

    def __init__(self, text: str) -> None:
        self._starts = [0]
        place = text.find("\n")
        while place >= 0:
            self._starts.append(place + 1)
            place = text.find("\n", place + 1)

    def of(self, span: Span) -> tuple[int, int]:
        """First and last line of a span that is not empty, from 1."""
        return bisect_right(self._starts, span.start), bisect_right(self._starts, span.end - 1)

    def spans(self, length: int) -> list[Span]:
        """Every line with its line feed, of a text of this length."""
        ends = [*self._starts[1:], length]
        return [Span(start, end) for start, end in zip(self._starts, ends, strict=True) if start < end]


def trimmed(text: str, span: Span) -> Span | None:
    """The span without white space around it; None where there is nothing else."""
    part = text[span.start : span.end]
    start = span.start + len(part) - len(part.lstrip())
    end = span.end - (len(part) - len(part.rstrip()))
    return Span(start, end) if start < end else None


def squeezed(text: str) -> str:
    """With every run of white space as one space and none around: how quotes are compared."""
    return " ".join(text.split())
