"""Chooses the embedder by the settings. Without one, search uses keywords only and says so."""

from dataclasses import dataclass
from typing import Literal, Protocol

from octollm.errors import EmbeddingError
from octollm.memory.embed.files import MODEL, PULL, is_there, minilm_folder, missing_package
from octollm.memory.ports import Embedder


class EmbeddingSection(Protocol):
    """The settings section `embedding`; octollm.default.toml says what each key means."""

    @property
    def provider(self) -> Literal["auto", "minilm", "openai", "fastembed", "none"]:
        """What embeds; `auto` is minilm where its files are, else none."""

    @property
    def path(self) -> str:
        """Folder with the files of minilm or fastembed; empty: where `octollm models pull` puts them."""

    @property
    def model(self) -> str:
        """Model name for openai and fastembed, as the server or the library names it; else unused."""

    @property
    def url(self) -> str:
        """Base URL for openai; empty: the variable OPENAI_BASE_URL, or OpenAI itself."""

    @property
    def dimension(self) -> int:
        """Length of the vectors; a store that holds others is refused."""


@dataclass(frozen=True, slots=True)
class ChosenEmbedder:
    """An embedder, or the reason why there is none."""

    embedder: Embedder | None
    reason: str | None
    """A sentence that searches return as a note."""


def choose_embedder(section: EmbeddingSection) -> ChosenEmbedder:
    """Return the configured embedder. Blocks while a local model loads.

    Raises EmbeddingError when the configured embedder is not available, or when `auto` finds model files that are
    damaged or that no installed package can read.
    """
    match section.provider:
        case "none":
            return ChosenEmbedder(None, "search is by keywords only: embedding.provider is none")
        case "openai":
            # Imported where they are used: each takes a moment and memory that a process without it need not spend.
            from octollm.memory.embed.openai import OpenAiEmbedder  # noqa: PLC0415

            return ChosenEmbedder(OpenAiEmbedder(section.model, section.dimension, section.url), None)
        case "fastembed":
            from octollm.memory.embed.fastembed import FastEmbedder  # noqa: PLC0415

            return ChosenEmbedder(FastEmbedder(section.model, section.dimension, section.path), None)
        case "auto" if not is_there(minilm_folder(section.path)):
            return ChosenEmbedder(None, f"search is by keywords only: {MODEL} is not there; {PULL} and start again")
        case "auto" | "minilm":
            return ChosenEmbedder(_minilm(section), None)


def _minilm(section: EmbeddingSection) -> Embedder:
    missing = missing_package()
    if missing is not None:
        raise EmbeddingError(f"{MODEL} cannot be loaded: {missing}, or set embedding.provider to none")
    from octollm.memory.embed.minilm import MiniLm  # noqa: PLC0415

    if section.dimension != MiniLm.dimension:
        raise EmbeddingError(
            f"embedding.dimension is {section.dimension}, but {MODEL} makes vectors of {MiniLm.dimension}; "
            "leave it out, or choose another embedding.provider"
        )
    return MiniLm.load(minilm_folder(section.path))
