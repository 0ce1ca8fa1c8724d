"""Ids derived from content, which make writes idempotent."""

import hashlib
from uuid import UUID, uuid5

import orjson

_NAMESPACE = UUID("8f0e4c9b-6f5e-5b0a-9a55-0c7011a11e0d")


def document_id(tenant: str, collection: str, name: str) -> UUID:
    """Return the id of a document."""
    return _derived("document", tenant, collection, name)


def passage_id(document: UUID, ordinal: int, text: str) -> UUID:
    """Return the id of a passage, derived from its document, its ordinal and its text."""
    return _derived("passage", str(document), ordinal, hashlib.sha256(text.encode()).hexdigest())


def entity_id(tenant: str, type_: str, name: str) -> UUID:
    """Return the id of an entity."""
    return _derived("entity", tenant, type_, name)


def relationship_id(tenant: str, begin: UUID, type_: str, end: UUID) -> UUID:
    """Return the id of a relationship from entity `begin` to entity `end`."""
    return _derived("relationship", tenant, str(begin), type_, str(end))


def _derived(*parts: str | int) -> UUID:
    # In JSON, ["ab", "c"] and ["a", "bc"] differ.
    return uuid5(_NAMESPACE, orjson.dumps(parts).decode())
