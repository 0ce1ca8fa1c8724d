"""Finds the two Rust programs and asks for their version."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from octollm.errors import StartError
from octollm.resources import checkout

REFLEX = "octollm-reflex"
EXECUTOR = "octollm-executor"


def find_program(name: str) -> Path:
    """Return the path of a program.

    It is taken from a checkout's release build, this Python's scripts, or PATH.

    Raises StartError that says how to get it.
    """
    folders = [Path(sysconfig.get_path("scripts"))]
    root = checkout()
    if root is not None:
        folders.insert(0, Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release")
    for folder in folders:
        if os.access(folder / name, os.X_OK):
            return folder / name
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    todo = "run `cargo build --release`" if root else "install OctoLLM from a wheel, or with a Rust toolchain present"
    raise StartError(f"the program {name} was not found; {todo}")


def program_version(path: Path) -> str:
    """Return what `--version` prints. Raises StartError if the program does not run."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 (one of our own programs)
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"{path} does not run: {error}") from error
    return answer.stdout.strip()
