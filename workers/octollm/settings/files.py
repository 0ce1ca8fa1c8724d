"""Choose the files that settings name: the configured one, else the one that ships with OctoLLM."""

from pathlib import Path

from octollm.resources import share_dir
from octollm.settings.loader import Settings


def topology_path(settings: Settings) -> Path:
    """The topology file to load: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.topology.file) if settings.topology.file else share_dir() / "streams.yaml"


def webhooks_path(settings: Settings) -> Path:
    """The file of webhook sources: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.webhooks.file) if settings.webhooks.file else share_dir() / "webhooks.yaml"


def callbacks_path(settings: Settings) -> Path:
    """The file of callbacks: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.callbacks.file) if settings.callbacks.file else share_dir() / "callbacks.yaml"


def schedules_path(settings: Settings) -> Path:
    """The file of schedules: the configured one, or the one that ships with OctoLLM."""
    return Path(settings.schedules.file) if settings.schedules.file else share_dir() / "schedules.yaml"


def recipes_path(settings: Settings) -> Path:
    """The folder of recipes: the configured one, or the one that ships with OctoLLM."""
    configured = settings.orchestrator.recipes_dir
    return Path(configured) if configured else share_dir() / "recipes"
