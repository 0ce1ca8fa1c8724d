"""The API keys in Redis: written from Postgres, read by every reflex (`reflex-rs/src/auth/`)."""

import re
from collections.abc import Mapping, Sequence

from octollm.protocol.backoff import store_errors
from octollm.protocol.connection import connect
from octollm.protocol.scripts import source
from octollm.topology.keys import API_KEYS, API_KEYS_NUMBER, API_KEYS_USED, API_KEYS_VERSION

_MAX_MS = 253_402_300_799_999
"""The end of the year 9999."""
_TIME = re.compile(r"[0-9]{1,15}")


class KeyRegistry:
    """A client of one Redis. See `octollm.credentials.publisher.Registry`, which it implements."""

    def __init__(self, url: str, connect_timeout_s: float) -> None:
        """Connects with the first call; `connect_timeout_s` bounds one attempt."""
        self._client = connect(url, connect_timeout_s)
        self._publish = self._client.register_script(source("publish_keys"))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def state(self) -> tuple[str | None, int, int]:
        """Return the published version (None: there is none), its number, and how many keys there are.

        What has another type than expected counts as absent; publishing replaces it.
        """
        with store_errors():
            # Not MULTI: a full Redis refuses to queue even reads.
            pipeline = self._client.pipeline(transaction=False)
            pipeline.get(API_KEYS_VERSION)
            pipeline.get(API_KEYS_NUMBER)
            pipeline.hlen(API_KEYS)
            version, number, count = await pipeline.execute(raise_on_error=False)
        known = isinstance(number, bytes) and number.isdigit()
        return (
            version.decode(errors="replace") if isinstance(version, bytes) else None,
            int(number) if known else 0,
            count if isinstance(count, int) else -1,
        )

    async def publish(self, number: int, version: str, records: Mapping[str, bytes]) -> int:
        """Replace all keys in one step unless a higher number is published; return the number that is."""
        fields = [part for record in records.items() for part in record]
        with store_errors():
            keys = [API_KEYS, API_KEYS_VERSION, API_KEYS_NUMBER]
            return int(await self._publish(keys=keys, args=[number, version, *fields]))

    async def last_uses(self) -> dict[str, int]:
        """Return when keys were last used: ms since 1970 by id. What is no such time is left out."""
        with store_errors():
            found = await self._client.hgetall(API_KEYS_USED)
        times = {_text(ident): _text(value) for ident, value in found.items()}
        return {ident: int(at) for ident, at in times.items() if _TIME.fullmatch(at) and int(at) <= _MAX_MS}

    async def delete_uses(self, ids: Sequence[str]) -> None:
        """Delete the times of keys that no longer exist."""
        with store_errors():
            await self._client.hdel(API_KEYS_USED, *ids)


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
