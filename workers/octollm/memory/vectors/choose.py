"""Which vector store a deployment has, by its settings."""

from pathlib import Path
from typing import Literal, Protocol

from octollm.errors import VectorStoreError
from octollm.memory.ports import VectorStore


class QdrantSection(Protocol):
    """The settings section `qdrant`; octollm.default.toml says what each key means."""

    @property
    def url(self) -> str:
        """URL of a Qdrant server; empty: there is none."""

    @property
    def api_key(self) -> str:
        """Sent to the server with each request; empty: the server asks for none."""

    @property
    def path(self) -> str:
        """Folder of an edge or local store, in which `~` is expanded.

        Empty: a local store keeps its vectors in memory, an edge store is refused.
        """

    @property
    def store(self) -> Literal["auto", "server", "edge", "local", "none"]:
        """Which store; `auto` is server where `url` is set, else edge where `path` is, else none."""


def choose_store(section: QdrantSection) -> VectorStore | None:
    """Return the configured store, not opened yet; None: no vectors are kept, search is by keywords only.

    Raises VectorStoreError where the setting that the chosen store needs is empty, or its library is not there.
    """
    # Imported where they are used: each loads a library that the others do without.
    match chosen(section):
        case "server":
            from octollm.memory.vectors.server import ServerStore  # noqa: PLC0415

            if not section.url:
                raise VectorStoreError("qdrant.store is server, but qdrant.url is empty; set OCTOLLM_QDRANT_URL")
            return ServerStore(section.url, section.api_key)
        case "edge":
            return _edge(section.path)
        case "local":
            from octollm.memory.vectors.local import LocalStore  # noqa: PLC0415

            return LocalStore(Path(section.path).expanduser() if section.path else None)
        case "none":
            return None


def chosen(section: QdrantSection) -> Literal["server", "edge", "local", "none"]:
    """Return `section.store`, with `auto` replaced by what it stands for."""
    if section.store != "auto":
        return section.store
    if section.url:
        return "server"
    return "edge" if section.path else "none"


def _edge(path: str) -> VectorStore:
    if not path:
        raise VectorStoreError("qdrant.store is edge, but qdrant.path is empty; set OCTOLLM_QDRANT_PATH to a folder")
    try:
        from octollm.memory.vectors.edge import EdgeStore  # noqa: PLC0415
    except ImportError as error:
        raise VectorStoreError(
            "the embedded vector store runs on Linux only; start a Qdrant server and set OCTOLLM_QDRANT_URL"
        ) from error
    return EdgeStore(Path(path).expanduser())
