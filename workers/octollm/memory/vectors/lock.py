"""One owner for the folder of an embedded store."""

import fcntl
from pathlib import Path
from typing import IO

from octollm.errors import VectorStoreError


def lock(folder: Path) -> IO[bytes]:
    """Makes the folder and takes its lock, which is held until the file is closed or the process ends.

    Raises VectorStoreError where another has it, or the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / "lock").open("ab")
    except OSError as error:
        raise VectorStoreError(f"the vector store's folder {folder} cannot be used ({error.strerror})") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise VectorStoreError(
            f"the vector store in {folder} is in use: an embedded store belongs to one process; "
            "for several start a Qdrant server and set OCTOLLM_QDRANT_URL"
        ) from error
    return file
