"""The client of every command, made from the settings."""

from octollm.client import Client
from octollm.settings.loader import load_settings


def connect(patience_s: float = 0) -> Client:
    """A person sees that nobody answers and decides; a command that follows a task sits it out for `patience_s`."""
    return Client(load_settings().reflex.url, patience_s=patience_s)
