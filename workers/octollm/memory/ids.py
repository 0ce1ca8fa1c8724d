"""Ids derived from what they name, so that writing twice changes nothing."""

import hashlib
from uuid import UUID, uuid5

import orjson

_NAMESPACE = UUID("8f0e4c9b-6f5e-5b0a-9a55-0c7011a11e0d")


def document_id(tenant: str, collection: str, name: str) -> UUID:
    """Of a document."""
    return _derived("document", tenant, collection, name)


def passage_id(document: UUID, ordinal: int, text: str) -> UUID:
    """Of a passage: its document, its place among the others, and what it says."""
    return _derived("passage", str(document), ordinal, hashlib.sha256(text.encode()).hexdigest())


def entity_id(tenant: str, type_: str, name: str) -> UUID:
    """Of an entity."""
    return _derived("entity", tenant, type_, name)


def relationship_id(tenant: str, begin: UUID, type_: str, end: UUID) -> UUID:
    """Of a relationship between two entities."""
    return _derived("relationship", tenant, str(begin), type_, str(end))


def _derived(*parts: str | int) -> UUID:
    # JSON keeps ["ab", "c"] and ["a", "bc"] apart.
    return uuid5(_NAMESPACE, orjson.dumps(parts).decode())
