"""Which provider and which model, from the settings and the keys in the environment.

Never reads a key's value.

The SDKs take a second to import, so each is imported only where its provider is the one.
"""
# ruff: noqa: PLC0415

from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import urlsplit

from octollm.errors import SettingsError
from octollm.models.prices import default_model
from octollm.models.provider import Provider

_KEYS = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
Make = Callable[[str, int, float], Provider]


def choose(
    provider: Literal["auto", "anthropic", "openai", "none"],
    model: str,
    max_output_tokens: int,
    timeout_s: float,
    environment: Mapping[str, str],
) -> Provider | None:
    """The provider, or None where none is wanted or no key is there.

    Raises SettingsError that says what to set.
    """
    if provider == "none":
        return None
    if provider == "auto":
        with_key = [name for name, key in _KEYS.items() if environment.get(key)]
        if not with_key:
            return None
        name = with_key[0]
    else:
        name = provider
        if not environment.get(_KEYS[name]):
            raise SettingsError(f"models.provider is {name}, but {_KEYS[name]} is not set; set it, or use auto or none")
    known = _server(name, environment.get("OPENAI_BASE_URL", ""))
    wanted = model or default_model(known)
    if wanted is None:
        raise SettingsError("OPENAI_BASE_URL names a server of its own: set models.model to a model it has")
    return _make(known)(wanted, max_output_tokens, timeout_s)


def expected(provider: Literal["auto", "anthropic", "openai", "none"], environment: Mapping[str, str]) -> bool:
    """Whether some process has a model: it is named, or a key is here.

    The orchestrator itself needs no key.
    """
    return provider in _KEYS or (provider == "auto" and any(environment.get(key) for key in _KEYS.values()))


def _server(name: str, openai_url: str) -> str:
    """`anthropic`, `openai`, or `compatible` for a server that only speaks like OpenAI's."""
    if name == "anthropic" or not openai_url:
        return name
    host = urlsplit(openai_url).hostname or ""
    return name if host == "api.openai.com" or host.endswith(".api.openai.com") else "compatible"


def _make(server: str) -> Make:
    match server:
        case "anthropic":
            from octollm.models.providers.anthropic import Anthropic

            return Anthropic
        case "openai":
            from octollm.models.providers.openai import OpenAI

            return OpenAI
        case _:
            from octollm.models.providers.compatible import Compatible

            return Compatible
