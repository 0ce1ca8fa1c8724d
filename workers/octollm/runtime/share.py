"""Finds the files that ship with OctoLLM beside the Python package: topology, webhook sources, schedules,
recipes, schemas, rules.

Owns the one answer to "where do they lie", in a checkout and in an install. Reads none of them.
"""

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from octollm.errors import SettingsError

if TYPE_CHECKING:
    from octollm.runtime.settings import Settings

_PACKAGE = Path(__file__).resolve().parents[1]
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


def topology_path(settings: "Settings") -> Path:
    """The topology file to load: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.topology.file) if settings.topology.file else share_dir() / _MARK


def webhooks_path(settings: "Settings") -> Path:
    """The file of webhook sources: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.webhooks.file) if settings.webhooks.file else share_dir() / "webhooks.yaml"


def schedules_path(settings: "Settings") -> Path:
    """The file of schedules: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.schedules.file) if settings.schedules.file else share_dir() / "schedules.yaml"


def recipes_path(settings: "Settings") -> Path:
    """The folder of recipes: the configured one, or the one that ships with OctoLLM."""
    configured = settings.orchestrator.recipes_dir
    return Path(configured) if configured else share_dir() / "recipes"


def schemas_path() -> Path:
    """The folder of the event schemas (`<event>.v<N>.schema.json`)."""
    return share_dir() / "schemas" / "events"


def texts() -> list[Path]:
    """The project's own Markdown, which the demo takes into memory."""
    return sorted([*share_dir().glob("*.md"), *share_dir().glob("docs/*.md")])


def rules_path() -> Path:
    """The folder of the admission and redaction rules that both languages read."""
    return share_dir() / "schemas" / "rules"


def _installed() -> list[Path]:
    """Where pip puts data files: the scheme's data path, the user's, and beside a `--target` folder."""
    roots = [Path(sysconfig.get_path("data"))]
    user_scheme = sysconfig.get_preferred_scheme("user")
    roots.append(Path(sysconfig.get_path("data", user_scheme)))
    roots.append(_PACKAGE.parent)
    return [root / "share" / "octollm" for root in roots]
