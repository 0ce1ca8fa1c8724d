"""The client that commands use, configured by the settings."""

from octollm.client import Client
from octollm.settings.loader import is_set, load_settings


def connect(retry_for_s: float = 0) -> Client:
    """Return a client of the configured reflex, else of that in the profile file.

    `retry_for_s`: how many seconds to retry while the reflex is unavailable. Commands do not retry by default, so that
    the user sees the problem at once.
    """
    url = load_settings().reflex.url
    return Client(url if is_set("reflex", "url") else None, retry_for_s=retry_for_s)
