"""What a call costs, by the price file.

What is not known for certain has no cost; nothing is guessed. Pure.
"""

from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

import orjson

from octollm.models.provider import Tokens

_MILLION = Decimal(1_000_000)


def default_model(provider: str) -> str | None:
    """The model of a provider that is asked where the settings name none."""
    found = _providers().get(provider)
    return None if found is None else str(found["default"])


def cost_usd(provider: str, model: str, tokens: Tokens | None) -> Decimal | None:
    """In US dollars, exact; None where a price that it takes is not in the file.

    `model`: as it was asked for.
    """
    prices = _providers().get(provider, {}).get("models", {}).get(model)
    if prices is None or tokens is None:
        return None
    used = {
        "input": tokens.input,
        "output": tokens.output,
        "cache_read": tokens.cache_read,
        "cache_write": tokens.cache_write,
    }
    if tokens.input + tokens.cache_read + tokens.cache_write > prices.get("up_to_input_tokens", float("inf")):
        return None
    if any(count and name not in prices for name, count in used.items()):
        return None
    return sum((Decimal(prices[name]) * count / _MILLION for name, count in used.items() if count), Decimal(0))


@cache
def _providers() -> dict[str, Any]:
    text = (resources.files("octollm.models") / "prices.json").read_bytes()
    found: dict[str, Any] = orjson.loads(text)["providers"]
    return found
