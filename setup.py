"""Adds both Rust programs to the wheel as scripts, so that its user needs no Rust. All other metadata: pyproject.toml.

OCTOLLM_SKIP_RUST=1 leaves them out. The editable install of a checkout sets it: there, the programs are found in
Cargo's own target folder, and work on the Python side compiles nothing.
"""

import os

from setuptools import setup
from setuptools_rust import RustBin

PROGRAMS = {"octollm-reflex": "reflex-rs", "octollm-executor": "executor-rs"}

# `debug=False`: an editable install would otherwise build a debug version. The first program's build makes both: built
# one by one, they need different features of hyper, futures-util and syn, and a third of all crates is compiled twice.
bins = [
    RustBin(target=program, path=f"{folder}/Cargo.toml", debug=False, args=["--locked", "--workspace", "--bins"])
    for program, folder in PROGRAMS.items()
    if os.environ.get("OCTOLLM_SKIP_RUST") != "1"
]

setup(rust_extensions=bins)
