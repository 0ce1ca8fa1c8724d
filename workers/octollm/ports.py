"""What an arm may ask for beyond its step: memory and models, as interfaces. The rooms `memory` and `minds` fill them.

An arm that is started without what it needs gets None and says so; it never falls back to something it is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from octollm.contracts import StepRequested

SearchMode = Literal["hybrid", "dense", "keyword"]


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found again later."""

    name: str
    """Unique within its tenant and collection, for instance a path. The same name again replaces the text."""
    text: str
    collection: str = "documents"
    media: Literal["markdown", "text", "code"] = "text"
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What a search may filter by."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, with its place."""

    collection: str
    document: str
    start: int
    """First character, counted in Unicode code points from 0."""
    end: int
    """The character after the last."""
    first_line: int
    """From 1."""
    last_line: int
    text: str
    heading: str = ""
    """The headings above it in Markdown, joined by ` > `."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    score: float = 0.0
    """Of the whole search; comparable within one answer only."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Rank by each leg that found it (`dense`, `keyword`), from 1."""


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search found, best first."""

    passages: Sequence[Passage]
    used: SearchMode
    """What was really done: without embeddings a hybrid search is `keyword`, and `note` says why."""
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Ingested:
    """What came of one document."""

    document: str
    state: Literal["new", "replaced", "unchanged"]
    passages: int
    tokens: int
    """Of the embedding's tokenizer; 0 where nothing was embedded."""


class Recall(Protocol):
    """Memory of one deployment. Every call names its tenant and sees nothing of others."""

    async def search(
        self,
        tenant: str,
        query: str,
        *,
        limit: int = 10,
        mode: SearchMode = "hybrid",
        collection: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Hits:
        """The best passages. Raises StoreUnavailableError while a store is away."""

    async def ingest(self, tenant: str, documents: Sequence[Document]) -> Sequence[Ingested]:
        """Take in documents, each all or nothing; an unchanged one (by its hash) costs nothing."""

    async def read(self, tenant: str, collection: str, document: str, start: int, end: int) -> str | None:
        """The stored text between two offsets; None where there is no such document."""

    async def forget(self, tenant: str, collection: str, document: str) -> bool:
        """Remove a document, its passages and its vectors; whether it was there."""


@dataclass(frozen=True, slots=True)
class Question:
    """One call of a model."""

    purpose: str
    """What it is for, for instance `plan`: part of the journal's key, beside the step's identity."""
    system: str
    prompt: str
    schema: Mapping[str, Any] | None = None
    """JSON Schema the answer must keep; None: free text."""
    call: int = 1
    """Counts the calls of one purpose within one attempt at a step, from 1."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered."""

    text: str
    value: Any
    """The answer as JSON, valid by the schema; None without a schema."""
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    journalled: bool
    """It was read from the journal: nothing was paid for it now."""


class ModelClient(Protocol):
    """A model behind whatever provider is configured."""

    async def ask(self, step: StepRequested, question: Question) -> Reply:
        """Answers from the journal where the very same was asked before under this step, else asks the model.

        Raises TransientError, NeedsPersonError or PermanentError; the code of the latter is `needs_model` where none is
        configured.
        """
