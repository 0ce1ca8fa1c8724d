"""The graph: entities and relationships as rows, each with the tasks that state it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.memory.facts import TaskMemory, Thing
from octollm.memory.ids import entity_id, relationship_id

_SQL = queries("octollm.memory", "index")


@dataclass(frozen=True, slots=True)
class TaskStatements:
    """The entities and relationships that one task states."""

    task: str
    tenant: str
    memory: TaskMemory


async def add_statements(connection: Connection, statements: Iterable[TaskStatements]) -> None:
    """Add entities, relationships and their sources. Idempotent. Call it in a transaction."""
    rows = _Rows()
    for one in statements:
        for thing in one.memory.entities:
            rows.entity(one, thing)
        for relationship in one.memory.relationships:
            begin, end = rows.entity(one, relationship.from_), rows.entity(one, relationship.to)
            rows.relationship(one, begin, relationship.type, end, relationship.attributes)
    if not rows.entities:
        return
    await connection.execute(_SQL["lock_graph_shared"], sorted({str(row["tenant"]) for row in rows.entities.values()}))
    await connection.execute(_SQL["put_entities"], _sorted(rows.entities.values()))
    await connection.execute(_SQL["put_entity_sources"], rows.entity_sources)
    if rows.relationships:
        await connection.execute(_SQL["put_relationships"], _sorted(rows.relationships.values()))
        await connection.execute(_SQL["put_relationship_sources"], rows.relationship_sources)


async def delete_statements(connection: Connection, tasks: Sequence[str]) -> None:
    """Delete the entities and relationships that only these tasks state. Call it in a transaction."""
    tenants = [row["tenant"] for row in await connection.fetch(_SQL["graph_tenants"], tasks)]
    await connection.execute(_SQL["lock_graph"], tenants)
    await connection.execute(_SQL["delete_relationships"], tasks)
    await connection.execute(_SQL["delete_entities"], tasks)


class _Rows:
    """Rows to insert, each once: one statement must not update a row twice."""

    def __init__(self) -> None:
        self.entities: dict[UUID, dict[str, Any]] = {}
        self.relationships: dict[UUID, dict[str, Any]] = {}
        self.entity_sources: list[dict[str, Any]] = []
        self.relationship_sources: list[dict[str, Any]] = []

    def entity(self, source: TaskStatements, thing: Thing) -> UUID:
        id_ = entity_id(source.tenant, thing.type, thing.name)
        row = {"id": id_, "tenant": source.tenant, "type": thing.type, "name": thing.name, "attributes": {}}
        self.entities.setdefault(id_, row)["attributes"] |= thing.attributes
        self.entity_sources.append({"id": id_, "task": source.task})
        return id_

    def relationship(
        self, source: TaskStatements, begin: UUID, type_: str, end: UUID, attributes: dict[str, Any]
    ) -> None:
        id_ = relationship_id(source.tenant, begin, type_, end)
        ends = {"from_entity": begin, "to_entity": end}
        row = {"id": id_, "tenant": source.tenant, "type": type_, **ends, "attributes": {}}
        self.relationships.setdefault(id_, row)["attributes"] |= attributes
        self.relationship_sources.append({"id": id_, "task": source.task})


def _sorted(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort by id, so that two writers lock rows in the same order and cannot deadlock."""
    return sorted(rows, key=lambda row: str(row["id"]))
