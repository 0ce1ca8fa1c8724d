"""Outputs of steps that are too large for a message: stored by content, per tenant."""

from collections.abc import Iterable, Mapping

import orjson

from octollm.database.pool import Connection
from octollm.database.queries import queries

_SQL = queries("octollm.database", "outputs")
Output = dict[str, object]


async def store_output(connection: Connection, tenant: str, sha256: str, raw: bytes) -> None:
    """Store an output's JSON under its digest; storing the same one again changes nothing."""
    await connection.execute(_SQL["store_output"], tenant, sha256, raw)


async def load_outputs(connection: Connection, wanted: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], Output]:
    """Load outputs by (tenant, SHA-256); the answer lacks those that are not stored."""
    keys = [{"tenant": tenant, "sha256": sha256} for tenant, sha256 in set(wanted)]
    if not keys:
        return {}
    found = await connection.fetch(_SQL["load_outputs"], keys)
    return {(row["tenant"], row["sha256"]): orjson.loads(row["body"]) for row in found}
