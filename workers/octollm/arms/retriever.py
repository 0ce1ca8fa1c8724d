"""The retriever: ingests documents, searches passages, and answers with quotes, without a model.

- `ingest` {documents: [{name, text, media?, attributes?}], collection?} gives
  {documents: [{name, state, passages, tokens}]}
- `search` {query, limit?, collection?, attributes?, search?} gives {passages: [...], used, note}
- `answer` {question, collection?, attributes?, limit?} gives {found, answer, synthesis, confidence, used, note,
  citations: [{n, collection, document, quote, start, end, first_line, last_line}]}; `synthesis` and `confidence` are
  null, because only a model could fill them
- `read` {citations: [{collection, document, start, end}]} gives {texts: [{..., text, first_line, last_line}]}, the last
  three are null if there is no such document
- `delete` {document, collection?} gives {deleted}

Only the beginning of a long query or question is used. Every input has `mode`, one of these; every output has
`mode: deterministic`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, cast

from octollm.arms.base import ArmContext, invalid, is_small, require_fields
from octollm.contracts import StepRequested
from octollm.errors import EmbeddingError, PermanentError, VectorStoreError
from octollm.ports import Document, Hits, MemoryStore, Passage, SearchMode
from octollm.text.citations import cited
from octollm.text.extract import Quote, Source, extract
from octollm.text.places import squeezed

_ANSWER = "answer"
_COLLECTION = "documents"
_MAX_NAME = 500
_MAX_QUERY = 400_000
_MAX_DOCUMENTS = 500
_MAX_ATTRIBUTES = 32
_MAX_PASSAGES = 100
_MEDIA = ("markdown", "text", "code")
_SEARCHES = ("hybrid", "dense", "keyword")
_MARKDOWN = (".md", ".markdown")
_CODE = (".py", ".rs", ".js", ".ts", ".go", ".c", ".h", ".cpp", ".java", ".rb", ".sh", ".sql", ".lua", ".yaml", ".toml")


class Retriever:
    """Arm `retriever`."""

    async def handle(self, step: StepRequested, ctx: ArmContext) -> dict[str, Any]:
        """Return the output described in the module.

        Raises PermanentError for invalid input, StoreUnavailableError.
        """
        mode = step.input.get("mode")
        if not isinstance(mode, str) or mode not in (*_MODES, _ANSWER):
            raise invalid(f"input.mode must be one of {', '.join((*_MODES, _ANSWER))}")
        if ctx.memory is None:
            raise PermanentError("no_memory", "this worker has no memory; start a worker with the role retriever")
        given = {name: value for name, value in step.input.items() if name != "mode"}
        try:
            if mode == _ANSWER:
                output = await _answer(ctx, ctx.memory, step.tenant, given)
            else:
                output = await _MODES[mode](ctx.memory, step.tenant, given)
        except EmbeddingError as error:
            raise PermanentError("embedding", error.message) from error
        except VectorStoreError as error:
            raise PermanentError("vector_store", error.message) from error
        ctx.log.info("retrieved", mode=mode, **{name: len(value) for name, value in output.items() if _is_list(value)})
        return {"mode": "deterministic", **output}


async def _ingest(memory: MemoryStore, tenant: str, given: dict[str, Any]) -> dict[str, Any]:
    require_fields(given, {"documents"}, {"collection"})
    collection = _text(given.get("collection", _COLLECTION), "input.collection", _MAX_NAME)
    listed = given["documents"]
    if not isinstance(listed, list) or not 1 <= len(listed) <= _MAX_DOCUMENTS:
        raise invalid(f"input.documents must be a list of 1 to {_MAX_DOCUMENTS} documents")
    documents = [_document(one, collection, f"input.documents.{number}") for number, one in enumerate(listed)]
    names = [document.name for document in documents]
    if len(set(names)) < len(names):
        raise invalid("input.documents has two documents of one name")
    taken = await memory.ingest(tenant, documents)
    return {
        "documents": [
            {"name": one.document, "state": one.state, "passages": one.passages, "tokens": one.tokens} for one in taken
        ]
    }


async def _search(memory: MemoryStore, tenant: str, given: dict[str, Any]) -> dict[str, Any]:
    require_fields(given, {"query"}, {"limit", "collection", "attributes", "search"})
    search = given.get("search", "hybrid")
    if search not in _SEARCHES:
        raise invalid(f"input.search must be one of {', '.join(_SEARCHES)}")
    query = _text(given["query"], "input.query", _MAX_QUERY)
    hits = await _find(memory, tenant, query, given, cast("SearchMode", search))
    return {"passages": [_passage(one) for one in hits.passages], "used": hits.used, "note": hits.note}


async def _answer(ctx: ArmContext, memory: MemoryStore, tenant: str, given: dict[str, Any]) -> dict[str, Any]:
    require_fields(given, {"question"}, {"limit", "collection", "attributes"})
    question = _text(given["question"], "input.question", _MAX_QUERY)
    hits = await _find(memory, tenant, question, given, "hybrid")
    sources = [Source(one.text, one.heading) for one in hits.passages]
    small = is_small([question, *(one.text for one in sources)])
    quotes = extract(question, sources) if small else await ctx.isolated(extract, question, sources)
    citations = [_citation(number, hits.passages[quote.source], quote) for number, quote in enumerate(quotes, 1)]
    return {
        "found": bool(citations),
        "answer": " ".join(cited(one["n"], one["quote"]) for one in citations),
        "citations": citations,
        "synthesis": None,
        "confidence": None,
        "used": hits.used,
        "note": hits.note,
    }


async def _read(memory: MemoryStore, tenant: str, given: dict[str, Any]) -> dict[str, Any]:
    require_fields(given, {"citations"}, set())
    listed = given["citations"]
    if not isinstance(listed, list) or len(listed) > _MAX_PASSAGES:
        raise invalid(f"input.citations must be a list of at most {_MAX_PASSAGES} places")
    places = [_place(one, f"input.citations.{number}") for number, one in enumerate(listed)]
    return {"texts": [await _stored(memory, tenant, place) for place in places]}


async def _delete(memory: MemoryStore, tenant: str, given: dict[str, Any]) -> dict[str, Any]:
    require_fields(given, {"document"}, {"collection"})
    collection = _text(given.get("collection", _COLLECTION), "input.collection", _MAX_NAME)
    document = _text(given["document"], "input.document", _MAX_NAME)
    return {"deleted": await memory.delete(tenant, collection, document)}


_Mode = Callable[[MemoryStore, str, dict[str, Any]], Awaitable[dict[str, Any]]]
_MODES: Mapping[str, _Mode] = {
    "ingest": _ingest,
    "search": _search,
    "read": _read,
    "delete": _delete,
}


async def _find(memory: MemoryStore, tenant: str, query: str, given: dict[str, Any], mode: SearchMode) -> Hits:
    limit = given.get("limit", 10)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _MAX_PASSAGES:
        raise invalid(f"input.limit must be a whole number from 1 to {_MAX_PASSAGES}")
    collection = given.get("collection")
    if "collection" in given:
        collection = _text(collection, "input.collection", _MAX_NAME)
    attributes = _attributes(given["attributes"], "input.attributes") if "attributes" in given else None
    return await memory.search(tenant, query, limit=limit, mode=mode, collection=collection, attributes=attributes)


async def _stored(memory: MemoryStore, tenant: str, place: dict[str, Any]) -> dict[str, Any]:
    """Read a place of a document. Lines are counted from the beginning, so the text is read from there."""
    start, end = place["start"], place["end"]
    text = await memory.read(tenant, place["collection"], place["document"], 0, end)
    if text is None or not start < end <= len(text):
        return {**place, "text": None, "first_line": None, "last_line": None}
    first = text.count("\n", 0, start) + 1
    return {
        **place,
        "text": text[start:end],
        "first_line": first,
        "last_line": first + text.count("\n", start, end - 1),
    }


def _citation(number: int, passage: Passage, quote: Quote) -> dict[str, Any]:
    span = quote.span
    first = passage.first_line + passage.text.count("\n", 0, span.start)
    return {
        "n": number,
        "collection": passage.collection,
        "document": passage.document,
        "quote": squeezed(passage.text[span.start : span.end]),
        "start": passage.start + span.start,
        "end": passage.start + span.end,
        "first_line": first,
        "last_line": first + passage.text.count("\n", span.start, span.end),
    }


def _passage(one: Passage) -> dict[str, Any]:
    return {
        "collection": one.collection,
        "document": one.document,
        "start": one.start,
        "end": one.end,
        "first_line": one.first_line,
        "last_line": one.last_line,
        "heading": one.heading,
        "text": one.text,
        "attributes": dict(one.attributes),
        "score": one.score,
        "ranks": dict(one.ranks),
    }


def _document(one: Any, collection: str, place: str) -> Document:  # noqa: ANN401  any JSON value
    if not isinstance(one, dict):
        raise invalid(f"{place} must be an object")
    require_fields(one, {"name", "text"}, {"media", "attributes"}, place)
    name = _text(one["name"], f"{place}.name", _MAX_NAME)
    media = one.get("media", _media_of(name))
    if media not in _MEDIA:
        raise invalid(f"{place}.media must be one of {', '.join(_MEDIA)}")
    text = _text(one["text"], f"{place}.text", None)
    return Document(name, text, collection, media, _attributes(one.get("attributes", {}), f"{place}.attributes"))


def _media_of(name: str) -> Literal["markdown", "text", "code"]:
    lower = name.lower()
    return "markdown" if lower.endswith(_MARKDOWN) else "code" if lower.endswith(_CODE) else "text"


def _place(one: Any, place: str) -> dict[str, Any]:  # noqa: ANN401  any JSON value
    if not isinstance(one, dict):
        raise invalid(f"{place} must be an object")
    require_fields(one, {"collection", "document", "start", "end"}, set(), place)
    for name in ("start", "end"):
        if isinstance(one[name], bool) or not isinstance(one[name], int) or not 0 <= one[name] < 2**31 - 1:
            raise invalid(f"{place}.{name} must be a whole number from 0")
    _text(one["collection"], f"{place}.collection", _MAX_NAME)
    _text(one["document"], f"{place}.document", _MAX_NAME)
    return one


def _attributes(value: Any, place: str) -> dict[str, str]:  # noqa: ANN401  any JSON value
    fits = isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    if not fits or len(value) > _MAX_ATTRIBUTES:
        raise invalid(f"{place} must map at most {_MAX_ATTRIBUTES} names to texts")
    return dict(value)


def _text(value: Any, place: str, longest: int | None) -> str:  # noqa: ANN401  any JSON value
    if not isinstance(value, str) or not value.strip():
        raise invalid(f"{place} must be text that is not empty")
    if longest is not None and len(value) > longest:
        raise invalid(f"{place} may have at most {longest} characters")
    return value


def _is_list(value: object) -> bool:
    return isinstance(value, list)
