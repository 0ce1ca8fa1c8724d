"""Lets the contract tests import the tools of `schemas/`, which is a folder of scripts and no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "schemas"))
