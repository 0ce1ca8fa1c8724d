"""A disk that can be filled: a small file system in memory, and a file that fills it. Needs root and Linux."""

import asyncio
import errno
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path

_SIZE_BYTES = 256 * 1024 * 1024
_STRIDES = (1024 * 1024, 4096)


class NoDiskError(Exception):
    """No such disk can be had here; the message says why."""


class Disk:
    """Mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Use the space that is left, to the last page.

        By writing, not by making the disk as small as its content: a process that has it open writes in between, and a
        disk smaller than that is refused.
        """
        with self._ballast.open("ab", buffering=0) as ballast:
            for stride in _STRIDES:
                _write_until_full(ballast, bytes(stride))

    def empty(self) -> None:
        """Free the space again."""
        self._ballast.unlink(missing_ok=True)


def _write_until_full(file: FileIO, piece: bytes) -> None:
    while True:
        try:
            file.write(piece)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


@asynccontextmanager
async def small_disk(
    folder: Path, stop: Callable[[], Awaitable[None]], start: Callable[[], Awaitable[None]]
) -> AsyncIterator[Disk]:
    """Keep `folder` on a disk of its own until the end; `stop` and `start` the process that has it open.

    Raises NoDiskError before anything is stopped.
    """
    _try(folder.with_name(f"{folder.name}.try"))
    whole = folder.with_name(f"{folder.name}.whole")
    await stop()
    await asyncio.to_thread(_move_to_memory, folder, whole)
    await start()
    disk = Disk(folder)
    try:
        yield disk
    finally:
        disk.empty()
        await stop()
        await asyncio.to_thread(_move_back, folder, whole)
        await start()


def _move_to_memory(folder: Path, whole: Path) -> None:
    folder.rename(whole)
    folder.mkdir(mode=0o700)
    _mount(folder)
    shutil.copytree(whole, folder, dirs_exist_ok=True)


def _move_back(folder: Path, whole: Path) -> None:
    shutil.rmtree(whole)
    shutil.copytree(folder, whole)
    _run("umount", "--lazy", str(folder))
    folder.rmdir()
    whole.rename(folder)


def _try(folder: Path) -> None:
    """Raises NoDiskError where this user may not mount anything."""
    folder.mkdir()
    try:
        _mount(folder)
        _run("umount", str(folder))
    except OSError as error:
        raise NoDiskError(f"a small disk cannot be had (it needs root on Linux): {error}") from error
    finally:
        folder.rmdir()


def _mount(folder: Path) -> None:
    _run("mount", "-t", "tmpfs", "-o", f"size={_SIZE_BYTES},mode=0700", "octollm-faults", str(folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
