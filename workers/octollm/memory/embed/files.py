"""What all-MiniLM-L6-v2 needs: its files, their folder and hashes, and the packages that read them.

No download.
"""

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

MODEL = "all-MiniLM-L6-v2"

FILES: Mapping[str, str] = MappingProxyType(
    {
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    }
)
"""File name to SHA-256. Vectors of other weights are not comparable, so other files are refused."""

PULL = "run `octollm models pull`"
EXTRA = "octollm[minilm]"
_PACKAGES = ("safetensors", "threadpoolctl", "tokenizers")
"""What the extra installs."""


def minilm_folder(configured: str) -> Path:
    """`configured`: the setting embedding.path; empty: the user's data folder."""
    if configured:
        return Path(configured).expanduser()
    data = os.environ.get("XDG_DATA_HOME", "")
    # The specification wants relative paths ignored.
    root = Path(data) if Path(data).is_absolute() else Path.home() / ".local" / "share"
    return root / "octollm" / "models" / MODEL


def is_there(folder: Path) -> bool:
    """Whether any of the files is: a broken copy should be complained about, not passed over."""
    return any((folder / name).exists() for name in FILES)


def missing_package() -> str | None:
    """Return the first package of the extra that is not installed, as the end of a sentence; None if all are."""
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            return f"the package {name} is not installed; install {EXTRA}"
    return None


def problem(folder: Path) -> str | None:
    """What is wrong with the files in a folder, as the end of a sentence; None where all are the right ones."""
    for name, expected in FILES.items():
        path = folder / name
        try:
            if sha256(path) != expected:
                return f"{path} is not the file of {MODEL} (its SHA-256 differs)"
        except FileNotFoundError:
            return f"{path} is missing"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
    return None


def sha256(path: Path) -> str:
    """Of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
