"""Publishes the kinds of tasks that can be planned, with the JSON Schema of each kind's input.

A hash (`KINDS`) has a field for each kind; the value is its JSON Schema (draft 2020-12) as JSON. The field `*` stands
for every other kind and for tasks without one, and exists if a model plans these. A string (`KINDS_VERSION`) is the
digest of the hash and is set in the same transaction, so a reader that follows the version reads the schemas only when
they change.
"""

import hashlib
from collections.abc import Mapping
from itertools import chain

from redis.asyncio import Redis

from octollm.topology.keys import KINDS, KINDS_VERSION


def version_of(schemas: Mapping[str, bytes]) -> str:
    """Return the digest of these schemas, which are JSON by kind: SHA-256 in lower-case hexadecimal."""
    digest = hashlib.sha256()
    for part in chain.from_iterable((kind.encode(), schemas[kind]) for kind in sorted(schemas)):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


async def publish(client: Redis, schemas: Mapping[str, bytes]) -> None:
    """Replace what is published. Raises redis-py's errors."""
    async with client.pipeline(transaction=True) as both:
        both.delete(KINDS)
        if schemas:
            both.hset(KINDS, items=list(chain.from_iterable(schemas.items())))
        both.set(KINDS_VERSION, version_of(schemas))
        await both.execute()


async def published_version(client: Redis) -> str | None:
    """Return the digest of what is published; None if nothing is. Raises redis-py's errors."""
    version = await client.get(KINDS_VERSION)
    return version.decode(errors="replace") if isinstance(version, bytes) else None
