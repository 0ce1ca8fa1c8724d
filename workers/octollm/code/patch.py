"""Applies a unified diff to files exactly: every context line must be where the diff says. Pure.

No fuzz and no search: a patch that would have to be guessed at is refused, with every hunk that does not fit.
"""

import re
from collections.abc import Mapping, Sequence

from octollm.code.diff import FilePatch, Hunk, read
from octollm.errors import PatchError

_SHOWN = 80


def apply(files: Mapping[str, str], patch: str) -> dict[str, str]:
    """The files as they are afterwards, all of them. Raises PatchError; then nothing is applied."""
    done = dict(files)
    faults: list[str] = []
    for one in read(patch):
        if one.old is None and one.name in done:
            faults.append(f"{one.name}: the patch creates it, but it is there")
        elif one.old is not None and one.name not in done:
            faults.append(f"{one.name}: there is no such file; there are {', '.join(sorted(done)) or 'none'}")
        else:
            _change(done, one, faults)
    if faults:
        raise PatchError("the patch does not apply: " + "; ".join(faults))
    return done


def _change(done: dict[str, str], patch: FilePatch, faults: list[str]) -> None:
    lines = _Lines(done.get(patch.name, ""))
    for number, hunk in enumerate(patch.hunks, 1):
        fault = lines.replace(hunk)
        if fault is not None:
            faults.append(f"{patch.name}, hunk {number} of {len(patch.hunks)}: {fault}")
    if patch.new is not None:
        done[patch.name] = lines.text
    elif lines.text and not faults:
        faults.append(f"{patch.name}: the patch removes it, but not all of its lines")
    else:
        done.pop(patch.name, None)


class _Lines:
    """A file's lines, each with its newline, while hunks are applied from the top down."""

    def __init__(self, text: str) -> None:
        self._old = [line for line in re.split(r"(?<=\n)", text) if line]
        self._new: list[str] = []
        self._taken = 0
        """Old lines that are already copied or replaced."""

    @property
    def text(self) -> str:
        """The file as it is now."""
        return "".join([*self._new, *self._old[self._taken :]])

    def replace(self, hunk: Hunk) -> str | None:
        """What is wrong, if anything is; then nothing has changed."""
        end = hunk.start + len(hunk.old)
        if hunk.start < self._taken:
            return "it begins before the hunk above it ends"
        if hunk.start > len(self._old) or tuple(self._old[hunk.start : end]) != hunk.old:
            return self._mismatch(hunk)
        lines = [*self._new, *self._old[self._taken : hunk.start], *hunk.new]
        if any(not line.endswith("\n") for line in (lines if end < len(self._old) else lines[:-1])):
            return "lines come after one without newline; replace that line as well"
        self._new, self._taken = lines, end
        return None

    def _mismatch(self, hunk: Hunk) -> str:
        where = _places(self._old, hunk.old) if hunk.old else []
        hint = f" (what it expects begins on line {where[0] + 1}: correct its head)" if len(where) == 1 else ""
        for at, wanted in enumerate(hunk.old, hunk.start):
            if at >= len(self._old):
                break
            if self._old[at] != wanted:
                return f"line {at + 1} is {self._old[at][:_SHOWN]!r}, it expects {wanted[:_SHOWN]!r}{hint}"
        return f"it expects more lines, the file has {len(self._old)}{hint}"


def _places(lines: Sequence[str], wanted: Sequence[str]) -> list[int]:
    size = len(wanted)
    return [start for start in range(len(lines) - size + 1) if tuple(lines[start : start + size]) == tuple(wanted)]
