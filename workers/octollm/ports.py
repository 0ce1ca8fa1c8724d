"""The interfaces that arms use beyond their step: memory, models, isolation.

Packages of these names implement them.

An arm that is started without one of them gets None, and must fail with an error that says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from octollm.contracts import StepRequested

Result = TypeVar("Result")
SearchMode = Literal["hybrid", "dense", "keyword"]
MAX_REPAIRS = 2
"""How often a step may send an answer back to the model, whatever is wrong with it; each time is a paid call."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text to store and search."""

    name: str
    """Unique within tenant and collection, for instance a path. Ingesting the same name again replaces the text."""
    text: str
    collection: str = "documents"
    media: Literal["markdown", "text", "code"] = "text"
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Values to filter searches by."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document, with its position."""

    collection: str
    document: str
    start: int
    """Index of the first character, in Unicode code points from 0."""
    end: int
    """Index after the last character."""
    first_line: int
    """Line of the first character, from 1."""
    last_line: int
    text: str
    heading: str = ""
    """The Markdown headings above it, joined by ` > `."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    score: float = 0.0
    """Combined score; comparable only within one search."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Rank, from 1, in each ranking that contains it (`dense`, `keyword`)."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The result of a search, best passage first."""

    passages: Sequence[Passage]
    used: SearchMode
    """The mode that was used. Without embeddings a hybrid search becomes `keyword`, and `note` says why."""
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of ingesting one document."""

    document: str
    state: Literal["new", "replaced", "unchanged"]
    passages: int
    tokens: int
    """Tokens by the embedder's tokenizer; 0 if nothing was embedded."""


class MemoryStore(Protocol):
    """The memory of a deployment. Every call names its tenant and sees only that tenant's documents."""

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
        """Return the best passages for `query`. Raises StoreUnavailableError.

        `attributes`: a passage matches if its document has all these values.
        """

    async def ingest(self, tenant: str, documents: Sequence[Document]) -> Sequence[Ingested]:
        """Store documents, each completely or not at all, and skip unchanged ones.

        Raises StoreUnavailableError.
        """

    async def read(self, tenant: str, collection: str, document: str, start: int, end: int) -> str | None:
        """Return a document's text from `start` to `end` (exclusive), in code points.

        None if there is no document.
        """

    async def delete(self, tenant: str, collection: str, document: str) -> bool:
        """Delete a document with its passages and vectors, and return whether it existed."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question to a model."""

    purpose: str
    """Purpose, for instance `plan`; part of the journal's key, with the step's identity."""
    system: str
    prompt: str
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the answer; None: free text."""
    call: int = 1
    """Number of the question with this purpose within one attempt at the step, from 1."""
    repairs: int = MAX_REPAIRS
    """How often an answer that breaks the schema may be sent back to the model."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a model."""

    text: str
    value: Any
    """The answer as a JSON value, valid by the schema; None without a schema."""
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    journalled: bool
    """Whether it was read from the journal, without a call to the model."""
    repairs: int = 0
    """How often the answer was sent back before this one kept the schema."""


class ModelClient(Protocol):
    """A model of the configured provider."""

    async def ask(self, step: StepRequested, question: Question) -> Reply:
        """Return the journalled answer if this step has asked the same before, else call the model.

        Raises TransientError, NeedsPersonError or PermanentError, the latter with the code `needs_model` if no model is
        configured.
        """


class Isolation(Protocol):
    """Processes for functions on untrusted content."""

    async def run(self, function: Callable[..., Result], *args: object) -> Result:
        """Call a function of a module in another process, and return its result.

        Cancelling it ends the process.

        `args` and the result are copied. Raises PermanentError if the function does or breaks on its input, or if it
        takes too much memory, and TransientError if it breaks for a reason that may pass. Content that ends its process
        or does not end within the step's time limit raises TransientError at the first attempt, then PermanentError.
        """
