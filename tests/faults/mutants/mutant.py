"""What a planted bug is: words of the code that are replaced, and what the campaign has to find because of it."""

from dataclasses import dataclass
from pathlib import Path

from octollm.errors import StartError
from tests.faults.checker import Kind


@dataclass(frozen=True)
class Change:
    """In one file, `old` becomes `new`; without `old`, `new` is added at the end."""

    file: str
    old: str
    new: str

    def apply(self, folder: Path) -> None:
        """Change the file below `folder`. Raises StartError if it does not hold the words exactly once."""
        file = folder / self.file
        text = file.read_text()
        if self.old and text.count(self.old) != 1:
            raise StartError(f"{self.file} does not hold the words of a planted bug once; adapt the bug: {self.old}")
        file.write_text(text.replace(self.old, self.new) if self.old else text + self.new)


@dataclass(frozen=True)
class Mutant:
    """A bug, the scenarios in which it shows, and as what: it is caught only when one of these offences is found."""

    bug: str
    scenarios: tuple[str, ...]
    shows: tuple[Kind, ...]
    changes: tuple[Change, ...]
    direct: bool = False
    """Whether it shows only where steps go from arm to arm."""
    program: str | None = None
    """The Rust program that is built with the changes; None: they are made in the Python package and its scripts."""
