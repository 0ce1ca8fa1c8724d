"""Publishes the kinds of tasks that can be planned, with the JSON Schema of each kind's input.

A hash (`KINDS`) has a field for each kind; the value is its JSON Schema (draft 2020-12) as JSON. The field `*` stands
for every other kind and for tasks without one, and exists if a model plans these. A string (`KINDS_VERSION`) is the
digest of the hash and is set by the same script (`lua/publish_kinds.lua`), so a reader that follows the version reads
the schemas only when they change.
"""

import hashlib
from collections.abc import Mapping
from itertools import chain

from redis.asyncio import Redis

from octollm.protocol.scripts import source
from octollm.topology.keys import KINDS, KINDS_VERSION


def version_of(schemas: Mapping[str, bytes]) -> str:
    """Return the digest of these schemas, which are JSON by kind: SHA-256 in lower-case hexadecimal."""
    digest = hashlib.sha256()
    for part in chain.from_iterable((kind.encode(), schemas[kind]) for kind in sorted(schemas)):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


async def publish(client: Redis, schemas: Mapping[str, bytes]) -> None:
    """Replace what is published. Raises redis-py's errors."""
    script = client.register_script(source("publish_kinds"))
    fields: list[str | bytes] = [part for item in schemas.items() for part in item]
    await script(keys=[KINDS, KINDS_VERSION], args=[version_of(schemas), *fields])


async def published_version(client: Redis) -> str | None:
    """Return the digest of what is published; None if nothing is. Raises redis-py's errors."""
    version = await client.get(KINDS_VERSION)
    return version.decode(errors="replace") if isinstance(version, bytes) else None
