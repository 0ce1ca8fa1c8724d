"""What a file has kept for certain: a library preloaded into Redis writes down every sync that has succeeded."""

import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("synced.c")


class NoWitnessError(Exception):
    """The library cannot be built here; the message says why."""


class Witness:
    """Sees what Redis syncs, once Redis runs with `environment`."""

    def __init__(self, library: Path, lines: Path) -> None:
        """Made by `build`."""
        self._library = library
        self._lines = lines

    @classmethod
    def build(cls, folder: Path) -> "Witness":
        """In a folder of its own."""
        folder.mkdir(exist_ok=True)
        library = folder / "synced.so"
        command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise NoWitnessError(f"there is no C compiler: cc: {error.strerror}") from error
        except subprocess.CalledProcessError as error:
            raise NoWitnessError(f"{_SOURCE.name} cannot be built: {error.stderr.strip()}") from error
        return cls(library, folder / "synced")

    @property
    def environment(self) -> dict[str, str]:
        """Of the process that is to be seen."""
        return {"LD_PRELOAD": str(self._library), "FAULTS_SYNCED": str(self._lines)}

    def seen(self) -> bool:
        """Whether anything was ever synced."""
        return self._lines.exists()

    def length(self, file: Path, before: int) -> int:
        """Bytes of the file that are on the disk for certain; `before`: those that were when the process began."""
        inode = str(file.stat().st_ino)
        known = [before]
        if self.seen():
            pairs = (line.split() for line in self._lines.read_text().splitlines())
            known += [int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] == inode]
        return max(known)

    def behind(self, file: Path, before: int) -> int:
        """Bytes that would go with the power."""
        return file.stat().st_size - self.length(file, before)
