"""Reads a unified diff, also with git's extra lines. Refuses what cannot be applied exactly. Pure.

Libraries for this skip lines that they do not understand, so a damaged hunk is left out of a patch that then "applies".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from octollm.errors import PatchError

_HUNK = re.compile(r"@@ -([0-9]{1,9})(?:,([0-9]{1,9}))? \+([0-9]{1,9})(?:,([0-9]{1,9}))? @@.*")
_NOTHING = "/dev/null"
_SIGNATURE = "-- "
"""What `git format-patch` writes below the last hunk."""
_REFUSED = {
    "rename ": "renames a file",
    "copy ": "copies a file",
    "old mode ": "changes a file's mode",
    "GIT binary patch": "is binary",
    "Binary files ": "is binary",
}


@dataclass(frozen=True, slots=True)
class Hunk:
    """One place of a file: what must stand there, and what shall."""

    start: int
    """Lines of the old file before this place."""
    old: tuple[str, ...]
    """Lines with their newline; only a file's last line may be without."""
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FilePatch:
    """All changes to one file; `old` None: it is new, `new` None: it is removed."""

    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...]

    @property
    def name(self) -> str:
        """The file it is about."""
        return self.new or self.old or ""


def read(text: str) -> tuple[FilePatch, ...]:
    """Every file of the diff. Raises PatchError that names the line of the diff."""
    reader = _Reader(text)
    patches = []
    while not reader.done:
        patch = reader.file()
        if patch is not None:
            patches.append(patch)
    if not patches:
        raise PatchError("the patch changes nothing: no line begins with ---; give a unified diff")
    return tuple(patches)


class _Reader:
    def __init__(self, text: str) -> None:
        self._lines: Sequence[str] = text.removesuffix("\n").split("\n")
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at >= len(self._lines)

    def file(self) -> FilePatch | None:
        """Return the next file, or None after the last one. Lines before its header are comments."""
        while not self.done:
            line = self._lines[self._at]
            for start, why in _REFUSED.items():
                if line.startswith(start):
                    raise self._wrong(f"{why}, which cannot be applied to text")
            if line.startswith("--- ") and self._at + 1 < len(self._lines):
                return self._changes()
            if line.startswith("@@ "):
                raise self._wrong("a hunk before any file; put --- and +++ lines above it")
            self._at += 1
        return None

    def _changes(self) -> FilePatch:
        old = self._lines[self._at][4:]
        self._at += 1
        if not self._lines[self._at].startswith("+++ "):
            raise self._wrong("a line +++ must follow the line ---")
        new = self._lines[self._at][4:]
        self._at += 1
        names = self._names(old, new)
        hunks = []
        while not self.done and self._lines[self._at].startswith("@@"):
            hunks.append(self._hunk())
        if not hunks:
            raise self._wrong("a line @@ -start,count +start,count @@ must follow the line +++")
        return FilePatch(*names, tuple(hunks))

    def _names(self, old: str, new: str) -> tuple[str | None, str | None]:
        old, new = (name.partition("\t")[0].rstrip("\r") for name in (old, new))
        if '"' in (old[:1], new[:1]):
            raise self._wrong("file names in quotes are not read; use plain names")
        if all(name == _NOTHING or name.startswith(prefix) for name, prefix in ((old, "a/"), (new, "b/"))):
            old, new = (name if name == _NOTHING else name[2:] for name in (old, new))
        names = (None if old == _NOTHING else old, None if new == _NOTHING else new)
        if names == (None, None) or (None not in names and names[0] != names[1]):
            raise self._wrong(f"one file on both sides, please, and not {old} and {new}")
        return names

    def _hunk(self) -> Hunk:
        found = _HUNK.fullmatch(self._lines[self._at].rstrip("\r"))
        if found is None:
            raise self._wrong("not a hunk's head; write @@ -start,count +start,count @@")
        head = self._at
        self._at += 1
        start = int(found[1])
        olds, news = (1 if count is None else int(count) for count in (found[2], found[4]))
        old: list[str] = []
        new: list[str] = []
        while len(old) < olds or len(new) < news:
            line = "" if self.done else self._lines[self._at]
            # A context line that is empty has often lost its space.
            kind, rest = (line[:1] or " "), line[1:]
            if self.done or kind not in " +-" or len(old) > olds or len(new) > news:
                break
            self._at += 1
            rest += "" if not self.done and self._lines[self._at].startswith("\\") else "\n"
            old += [rest] if kind in " -" else []
            new += [rest] if kind in " +" else []
            self._at += not rest.endswith("\n")
        if len(old) != olds or len(new) != news:
            self._at = head
            raise self._wrong(f"this hunk's head promises {olds} old and {news} new lines, which do not follow")
        if not self.done and self._lines[self._at][:1] in ("+", "-", " ") and not self._ends_hunk():
            raise self._wrong(f"the hunk continues after the {olds} old and {news} new lines that its head promises")
        # Without old lines, `start` is the line after which the new ones come.
        return Hunk(start - 1 if olds else start, tuple(old), tuple(new))

    def _ends_hunk(self) -> bool:
        line, following = self._lines[self._at], self._lines[self._at + 1 : self._at + 2]
        header = line.startswith("--- ") and following and following[0].startswith("+++ ")
        return bool(header) or line.rstrip("\r") == _SIGNATURE

    def _wrong(self, why: str) -> PatchError:
        return PatchError(f"line {self._at + 1} of the patch: {why}")
