"""A disk that can be filled: a file system in memory whose size is changed while it is used. Needs root and Linux."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

_BLOCK = 64 * 1024
_ROOM = 256 * 1024 * 1024


class NoDiskError(Exception):
    """No such disk can be had here; the message says why."""


class Disk:
    """Mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """As large as what lies on it, and not a page larger."""
        found = os.statvfs(self.folder)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        self._resize(used)

    def empty(self) -> None:
        """Room for everything again."""
        self._resize(_ROOM)

    def _resize(self, size: int) -> None:
        _run("mount", "-o", f"remount,size={size}", str(self.folder))


@asynccontextmanager
async def small_disk(
    folder: Path, stop: Callable[[], Awaitable[None]], start: Callable[[], Awaitable[None]]
) -> AsyncIterator[Disk]:
    """What lies in `folder` is on a disk of its own until the end; `stop` and `start` whoever has it open.

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
    """Whether this user may mount anything."""
    folder.mkdir()
    try:
        _mount(folder)
        _run("umount", str(folder))
    finally:
        folder.rmdir()


def _mount(folder: Path) -> None:
    _run("mount", "-t", "tmpfs", "-o", f"size={_ROOM},mode=0700", "octollm-faults", str(folder))


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        raise NoDiskError(f"a small disk cannot be had: {command[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        raise NoDiskError(f"a small disk cannot be had (it needs root on Linux): {error.stderr.strip()}") from error
