"""The one folder that an embedded stack writes to: given by the user, or temporary and removed at the end.

Owns its lock. The servers inherit the lock's file, so that a folder counts as in use until the last of them
is gone, also when `octollm up` itself was killed.
"""

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from octollm.devstack.embedded.process import private_folder
from octollm.errors import StartError

_PREFIX = "octollm-up-"
_LOCK = "lock"
_TIMEOUT_S = 5  # servers of a killed stack need a moment to end


class DataDir:
    """A locked folder; a context manager."""

    def __init__(self, path: Path | None) -> None:
        """None: a temporary folder."""
        self.ephemeral = path is None
        self._wanted = path
        self._path: Path | None = None
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        """The folder; known inside the context."""
        if self._path is None:
            raise StartError("the data directory is not open")
        return self._path

    @property
    def lock(self) -> int:
        """The lock's file descriptor, for children to inherit."""
        if self._lock is None:
            raise StartError("the data directory is not open")
        return self._lock

    def __enter__(self) -> Self:
        """Make and lock the folder; raises StartError when another stack uses it."""
        if self._wanted is None:
            _remove_abandoned()
            self._path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        else:
            self._path = private_folder(self._wanted.expanduser().resolve())
        self._lock = _locked(self._path / _LOCK, _TIMEOUT_S)
        if self._lock is None:
            raise StartError(
                f"another `octollm up` uses {self._path}; stop it, or choose another folder with --data "
                "(without --data every stack has its own)"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the folder, and remove it when it is temporary."""
        if self.ephemeral:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)
        self._lock = None


def _locked(path: Path, timeout_s: float) -> int | None:
    """The open lock file, or None when someone else holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot write to {path.parent} ({error.strerror}); choose another with --data") from error
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            return None
        return descriptor


def _remove_abandoned() -> None:
    """Return the temporary folders of stacks that were killed: no process holds their lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = folder / _LOCK
        try:
            state = folder.stat()
            young = time.time() - state.st_mtime < _TIMEOUT_S  # perhaps about to be locked
            if state.st_uid != os.geteuid() or young or not lock.is_file():
                continue
            descriptor = _locked(lock, 0)
        except (OSError, StartError):
            continue
        if descriptor is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)
