"""Plants a bug: in a copy of the Python package, or in a Rust program that is built from a copy of the sources.

The copy of the Rust sources and what is compiled from it stay in `build/faults`, so that a further bug costs only the
compilation of the crates that it changes, a few seconds. For the same reason the program is not optimized.
"""

import fcntl
import filecmp
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from octollm.errors import StartError
from tests.faults.mutants.mutant import Mutant
from tests.faults.stage import ROOT

_RUST = ROOT / "build" / "faults"
_SOURCES = (
    *("Cargo.toml", "Cargo.lock", "crates", "executor-rs", "reflex-rs", "schemas", "lua", "webhooks.yaml"),
    "workers/octollm/settings/octollm.default.toml",
)
_SHARED = ("streams.yaml", "schedules.yaml", "callbacks.yaml", "recipes", "schemas")


@dataclass(frozen=True)
class Planted:
    """Where the code with the bug is."""

    package: Path = ROOT
    """The checkout whose Python code and scripts run."""
    programs: Path | None = None
    """A folder with the Rust programs that differ from the release build."""


def plant(mutant: Mutant, folder: Path) -> Planted:
    """Make the code with the bug in `folder`, which must exist.

    Raises StartError if the bug no longer fits the code, or the program no longer compiles with it.
    """
    if mutant.program is None:
        return Planted(package=plant_in_package(mutant, folder))
    programs = folder / "programs"
    programs.mkdir()
    with _rust_sources() as sources:
        for change in mutant.changes:
            change.apply(sources)
        shutil.copy2(_build(sources, mutant.program), programs)
    return Planted(programs=programs)


def plant_in_package(mutant: Mutant, folder: Path) -> Path:
    """Return a checkout below `folder` whose Python package and scripts have the changes."""
    package = folder / "package"
    (package / "workers").mkdir(parents=True)
    # With what Python has compiled: most of it is unchanged, and a campaign starts many processes.
    shutil.copytree(ROOT / "workers" / "octollm", package / "workers" / "octollm")
    shutil.copytree(ROOT / "lua", package / "lua")
    for shared in _SHARED:
        (package / shared).symlink_to(ROOT / shared)
    for change in mutant.changes:
        change.apply(package)
    return package


@contextmanager
def _rust_sources() -> Iterator[Path]:
    """A copy of the Rust sources as they are, for one process at a time."""
    _RUST.mkdir(parents=True, exist_ok=True)
    with (_RUST / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        copy = _RUST / "sources"
        for name in _SOURCES:
            _update(ROOT / name, copy / name)
        yield copy


def _update(source: Path, copy: Path) -> None:
    """Make `copy` equal to `source`. What is equal keeps its time of change, by which cargo knows what to compile."""
    if source.is_dir():
        copy.mkdir(parents=True, exist_ok=True)
        names = {one.name for one in source.iterdir()}
        for gone in (one for one in copy.iterdir() if one.name not in names):
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        for name in names:
            _update(source / name, copy / name)
    elif not copy.is_file() or not filecmp.cmp(source, copy, shallow=False):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)


def _build(sources: Path, program: str) -> Path:
    """Compile one program; its path. Raises StartError with what the compiler said."""
    target = _RUST / "target"
    command = ["cargo", "build", "--quiet", "--locked", "--workspace", "--bin", program]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_DEV_DEBUG": "0"}
    done = subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartError(f"{program} with the planted bug does not compile:\n{done.stderr}")
    return target / "debug" / program
