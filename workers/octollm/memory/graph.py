"""What tasks say about things and how they hang together: entities and relationships as rows, each with who says so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.memory.facts import Remembered, Thing
from octollm.memory.ids import entity_id, relationship_id

_SQL = queries("octollm.memory", "index")


@dataclass(frozen=True, slots=True)
class Said:
    """What one task says."""

    task: str
    tenant: str
    remembered: Remembered


async def add(connection: Connection, said: Iterable[Said]) -> None:
    """Within a transaction: add what is new, and to all of it who says so. Twice is once."""
    rows = _Rows()
    for one in said:
        for thing in one.remembered.entities:
            rows.entity(one, thing)
        for relationship in one.remembered.relationships:
            begin, end = rows.entity(one, relationship.from_), rows.entity(one, relationship.to)
            rows.relationship(one, begin, relationship.type, end, relationship.attributes)
    if not rows.entities:
        return
    await connection.execute(_SQL["share_graph"], sorted({str(row["tenant"]) for row in rows.entities.values()}))
    await connection.execute(_SQL["put_entities"], _sorted(rows.entities.values()))
    await connection.execute(_SQL["put_entity_sources"], rows.entity_sources)
    if rows.relationships:
        await connection.execute(_SQL["put_relationships"], _sorted(rows.relationships.values()))
        await connection.execute(_SQL["put_relationship_sources"], rows.relationship_sources)


async def forget(connection: Connection, tasks: Sequence[str]) -> None:
    """Within a transaction: take away what these tasks alone say."""
    tenants = [row["tenant"] for row in await connection.fetch(_SQL["graph_tenants"], tasks)]
    await connection.execute(_SQL["hold_graph"], tenants)
    await connection.execute(_SQL["forget_relationships"], tasks)
    await connection.execute(_SQL["forget_entities"], tasks)


class _Rows:
    """Each row once, however many tasks have it: a statement may not touch one twice."""

    def __init__(self) -> None:
        self.entities: dict[UUID, dict[str, Any]] = {}
        self.relationships: dict[UUID, dict[str, Any]] = {}
        self.entity_sources: list[dict[str, Any]] = []
        self.relationship_sources: list[dict[str, Any]] = []

    def entity(self, said: Said, thing: Thing) -> UUID:
        id_ = entity_id(said.tenant, thing.type, thing.name)
        row = {"id": id_, "tenant": said.tenant, "type": thing.type, "name": thing.name, "attributes": {}}
        self.entities.setdefault(id_, row)["attributes"] |= thing.attributes
        self.entity_sources.append({"id": id_, "task": said.task})
        return id_

    def relationship(self, said: Said, begin: UUID, type_: str, end: UUID, attributes: dict[str, Any]) -> None:
        id_ = relationship_id(said.tenant, begin, type_, end)
        ends = {"from_entity": begin, "to_entity": end}
        row = {"id": id_, "tenant": said.tenant, "type": type_, **ends, "attributes": {}}
        self.relationships.setdefault(id_, row)["attributes"] |= attributes
        self.relationship_sources.append({"id": id_, "task": said.task})


def _sorted(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """In one order everywhere, so that two writers never wait for each other."""
    return sorted(rows, key=lambda row: str(row["id"]))
