"""The payload that every store keeps with a vector, and the filters of a search.

The same in all of them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octollm.errors import VectorStoreError
from octollm.memory.ports import Point

COLLECTION = "octollm_passages"
"""Of a server, where others may have collections too."""

TENANT, PASSAGES_OF, DOCUMENT, ATTRIBUTES = "tenant", "collection", "document", "attributes"
INDEXED = (TENANT, PASSAGES_OF, DOCUMENT, ATTRIBUTES)
EMBEDDER, DIMENSION = "embedder", "dimension"


def payload(point: Point) -> dict[str, Any]:
    """An attribute is one word, so that one index serves all of them and no name is read as a path."""
    return {
        TENANT: point.tenant,
        PASSAGES_OF: point.collection,
        DOCUMENT: point.document,
        ATTRIBUTES: [_word(key, value) for key, value in point.attributes.items()],
    }


def conditions(
    tenant: str,
    collection: str | None = None,
    document: str | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, str]]:
    """Field and value, all of which must hold. The tenant always stands among them."""
    yield TENANT, tenant
    if collection is not None:
        yield PASSAGES_OF, collection
    if document is not None:
        yield DOCUMENT, document
    for key, value in (attributes or {}).items():
        yield ATTRIBUTES, _word(key, value)


def check_vectors(vectors: Sequence[NDArray[np.float32]], dimension: int) -> None:
    """Raises VectorStoreError: some stores would take a wrong vector and search badly ever after."""
    for vector in vectors:
        if vector.shape != (dimension,):
            shape = " by ".join(str(side) for side in vector.shape)
            raise VectorStoreError(
                f"a vector of {shape} numbers does not fit a store of {dimension}-dimensional vectors"
            )
        if not np.isfinite(vector).all():
            raise VectorStoreError("a vector holds a number that is not finite")


def check_same(place: str, found: tuple[object, object], wanted: tuple[str, int]) -> None:
    """Embedder and dimension of a store and of the settings. Raises VectorStoreError where they differ."""
    if found != wanted:
        raise VectorStoreError(
            f"{place} holds vectors of {found[0]} with {found[1]} dimensions, but the settings say {wanted[0]} with "
            f"{wanted[1]}; set the section embedding as it was, or remove {place} and take the documents in again"
        )


def _word(key: str, value: str) -> str:
    return json.dumps([key, value], ensure_ascii=False)
