"""Locate the files that ship with OctoLLM outside the Python package.

These are the topology, webhook sources, schedules, recipes, schemas, rules and Lua scripts.

Owns the answer to "where is this file", in a checkout and in an install. Reads none of them.
"""

import sysconfig
from pathlib import Path

from octollm.errors import SettingsError

_PACKAGE = Path(__file__).resolve().parent
_MARK = "streams.yaml"


def checkout() -> Path | None:
    """The repository root when this code runs from a clone, else None."""
    root = _PACKAGE.parents[1]
    return root if (root / _MARK).is_file() and (root / "workers" / "octollm") == _PACKAGE else None


def share_dir() -> Path:
    """The repository root in a checkout, `<prefix>/share/octollm` in an install."""
    root = checkout()
    if root is not None:
        return root
    candidates = _installed()
    for candidate in candidates:
        if (candidate / _MARK).is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise SettingsError(f"{_MARK} was not found in {looked}; install OctoLLM again")


def schemas_path() -> Path:
    """The folder of the event schemas (`<event>.v<N>.schema.json`)."""
    return share_dir() / "schemas" / "events"


def texts() -> list[Path]:
    """The project's own Markdown, which the demo takes into memory."""
    return sorted([*share_dir().glob("*.md"), *share_dir().glob("docs/*.md")])


def lua_path() -> Path:
    """Return the folder of the Lua scripts that both languages run."""
    return share_dir() / "lua"


def rules_path() -> Path:
    """The folder of the admission and redaction rules that both languages read."""
    return share_dir() / "schemas" / "rules"


def _installed() -> list[Path]:
    """Return where pip puts data files.

    That is the scheme's data path, the user's, or next to a `--target` folder.
    """
    roots = [Path(sysconfig.get_path("data"))]
    user_scheme = sysconfig.get_preferred_scheme("user")
    roots.append(Path(sysconfig.get_path("data", user_scheme)))
    roots.append(_PACKAGE.parent)
    return [root / "share" / "octollm" for root in roots]
