"""The retriever on a real memory: each mode, what it refuses, and the judge on its citations."""

from typing import Any

import pytest
import structlog

from octollm.arms.base import ArmContext
from octollm.arms.judge import Judge
from octollm.arms.retriever import Retriever
from octollm.contracts import StepRequested
from octollm.errors import EmbeddingError, PermanentError, StoreUnavailableError
from octollm.memory.dense import Dense
from octollm.memory.stored_memory import StoredMemory
from octollm.resources import rules_path, share_dir
from tests.helpers.consumers import step
from tests.helpers.memory_fakes import HashingEmbedder, ListStore

GUIDE = "# Leases\n\nA worker renews its lease\nevery five seconds. It may lose it.\n\n# Other\n\nNothing to see.\n"
NOTHING = {
    "mode": "deterministic",
    "found": False,
    "answer": "",
    "citations": [],
    "synthesis": None,
    "confidence": None,
}


@pytest.fixture
def context(pool):
    memory_store = StoredMemory(pool, Dense(HashingEmbedder(), ListStore()))
    return ArmContext(structlog.get_logger(), "w", rules_path(), memory=memory_store)


async def ask(context, arm=Retriever, **given: Any) -> dict[str, Any]:
    asked: StepRequested = step(input=given)
    return await arm().handle(asked, context)


async def test_a_document_is_taken_in_searched_and_deleted(context):
    document = {"name": "guide.md", "text": GUIDE, "attributes": {"kind": "doc"}}
    taken = await ask(context, mode="ingest", documents=[document])
    assert taken["mode"] == "deterministic"
    (one,) = taken["documents"]
    assert (one["name"], one["state"], one["passages"]) == ("guide.md", "new", 2)
    assert (await ask(context, mode="ingest", documents=[document]))["documents"][0]["state"] == "unchanged"
    found = await ask(context, mode="search", query="lease", limit=1, attributes={"kind": "doc"})
    assert (found["used"], found["note"]) == ("hybrid", None)
    (passage,) = found["passages"]
    assert (passage["document"], passage["heading"], passage["first_line"]) == ("guide.md", "Leases", 1)
    assert (await ask(context, mode="search", query="lease", search="keyword"))["used"] == "keyword"
    assert (await ask(context, mode="delete", document="guide.md"))["deleted"] is True
    assert (await ask(context, mode="delete", document="guide.md"))["deleted"] is False
    assert (await ask(context, mode="search", query="lease"))["passages"] == []


async def test_an_answer_quotes_and_the_judge_finds_its_quotes(context):
    await ask(context, mode="ingest", documents=[{"name": "guide.md", "text": GUIDE}])
    answer = await ask(context, mode="answer", question="How often does a worker renew its lease?")
    assert answer["answer"] == "A worker renews its lease every five seconds. [1]"
    (citation,) = answer["citations"]
    assert (citation["document"], citation["first_line"], citation["last_line"]) == ("guide.md", 3, 4)
    assert GUIDE[citation["start"] : citation["end"]] == "A worker renews its lease\nevery five seconds."
    place = {name: citation[name] for name in ("collection", "document", "start", "end")}
    read = await ask(context, mode="read", citations=[place])
    check = {"check": "citations", "of": answer, "sources": read}
    assert (await ask(context, Judge, checks=[check]))["verdict"] == "pass"
    # The document changed meanwhile: the answer is no longer right.
    await ask(context, mode="ingest", documents=[{"name": "guide.md", "text": GUIDE.replace("five", "nine")}])
    check["sources"] = await ask(context, mode="read", citations=[place])
    verdict = await ask(context, Judge, checks=[check])
    assert verdict["verdict"] == "fail"
    assert "citation 1 (guide.md): 'A worker renews" in verdict["reasons"][0]
    await ask(context, mode="delete", document="guide.md")
    check["sources"] = await ask(context, mode="read", citations=[place])
    assert "no such document" in (await ask(context, Judge, checks=[check]))["reasons"][0]


async def test_an_answer_that_is_not_there_is_not_made_up(context):
    await ask(context, mode="ingest", documents=[{"name": "guide.md", "text": GUIDE}])
    answer = await ask(context, mode="answer", question="Which wine goes with fish?")
    assert {name: answer[name] for name in NOTHING} == NOTHING
    read = await ask(context, mode="read", citations=[])
    check = {"check": "citations", "of": answer, "sources": read}
    assert (await ask(context, Judge, checks=[check]))["verdict"] == "pass"


async def test_a_place_that_is_not_there_reads_as_null(context):
    await ask(context, mode="ingest", documents=[{"name": "n", "text": "short"}])
    places = [{"collection": "documents", "document": name, "start": start, "end": end}
              for name, start, end in (("n", 0, 5), ("n", 1, 6), ("n", 3, 3), ("gone", 0, 5))]  # fmt: skip
    texts = (await ask(context, mode="read", citations=places))["texts"]
    assert [one["text"] for one in texts] == ["short", None, None, None]
    assert [one["first_line"] for one in texts] == [1, None, None, None]


@pytest.mark.parametrize(
    ("question", "document"),
    [
        ("Who claims the entries of a dead worker?", "docs/ARCHITECTURE.md"),
        ("What does octollm up do if port 8080 is taken?", "README.md"),
        ("How is personal data replaced at admission?", "SECURITY.md"),
    ],
)
async def test_the_projects_own_documents_answer(context, question, document):
    names = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md")
    texts = {name: (share_dir() / name).read_text() for name in names}
    await ask(context, mode="ingest", documents=[{"name": name, "text": text} for name, text in texts.items()])
    answer = await ask(context, mode="answer", question=question)
    assert document in {one["document"] for one in answer["citations"]}
    for one in answer["citations"]:
        lines = texts[one["document"]].split("\n")[one["first_line"] - 1 : one["last_line"]]
        assert one["quote"] in " ".join(" ".join(lines).split())


GOOD = {"name": "n", "text": "t"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "input.mode must be one of"),
        ({"mode": ["ingest"]}, "input.mode"),
        ({"mode": "ingest"}, "input.documents is missing"),
        ({"mode": "ingest", "documents": []}, "1 to 500"),
        ({"mode": "ingest", "documents": {"n": "t"}}, "1 to 500"),
        ({"mode": "ingest", "documents": ["t"]}, "documents.0 must be an object"),
        ({"mode": "ingest", "documents": [{"name": "n"}]}, "documents.0.text is missing"),
        ({"mode": "ingest", "documents": [{**GOOD, "text": " "}]}, "documents.0.text"),
        ({"mode": "ingest", "documents": [{**GOOD, "name": 5}]}, "documents.0.name"),
        ({"mode": "ingest", "documents": [{**GOOD, "media": "pdf"}]}, "documents.0.media"),
        ({"mode": "ingest", "documents": [{**GOOD, "attributes": {"n": 5}}]}, "documents.0.attributes"),
        ({"mode": "ingest", "documents": [GOOD, GOOD]}, "two documents of one name"),
        ({"mode": "ingest", "documents": [GOOD], "collection": ""}, "input.collection"),
        ({"mode": "ingest", "documents": [GOOD], "colour": "red"}, "input.colour is unknown"),
        ({"mode": "search"}, "input.query is missing"),
        ({"mode": "search", "query": "x" * 400_001}, "at most 400000"),
        ({"mode": "search", "query": "x", "limit": 0}, "input.limit"),
        ({"mode": "search", "query": "x", "limit": True}, "input.limit"),
        ({"mode": "search", "query": "x", "limit": 101}, "input.limit"),
        ({"mode": "search", "query": "x", "search": "both"}, "input.search"),
        ({"mode": "search", "query": "x", "attributes": []}, "input.attributes"),
        ({"mode": "search", "query": "x", "collection": None}, "input.collection"),
        ({"mode": "answer", "question": ""}, "input.question"),
        ({"mode": "answer", "question": "x", "search": "dense"}, "input.search is unknown"),
        ({"mode": "read", "citations": {}}, "input.citations"),
        ({"mode": "read", "citations": [{"document": "d"}]}, "citations.0.collection is missing"),
        ({"mode": "read", "citations": [{"collection": "c", "document": "d", "start": -1, "end": 2}]}, "0.start"),
        ({"mode": "read", "citations": [{"collection": "c", "document": "d", "start": 0, "end": 2**31}]}, "0.end"),
        ({"mode": "delete"}, "input.document is missing"),
    ],
)  # fmt: skip
async def test_other_input_is_refused_by_name(context, given, message):
    with pytest.raises(PermanentError, match=message.replace(".", r"\.")) as caught:
        await ask(context, **given)
    assert caught.value.code == "invalid_input"


async def test_without_memory_it_says_so(context):
    bare = ArmContext(structlog.get_logger(), "w", rules_path())
    with pytest.raises(PermanentError, match="no memory"):
        await ask(bare, mode="search", query="x")


async def test_what_the_stores_say_ends_as_it_should(pool):
    class Refusing(HashingEmbedder):
        async def embed(self, _texts):
            raise EmbeddingError("the provider refuses the key")

    store = ListStore()
    refused = ArmContext(structlog.get_logger(), "w", rules_path(), memory=StoredMemory(pool, Dense(Refusing(), store)))
    with pytest.raises(PermanentError, match="refuses the key"):
        await ask(refused, mode="ingest", documents=[GOOD])
    away = ArmContext(
        structlog.get_logger(), "w", rules_path(), memory=StoredMemory(pool, Dense(HashingEmbedder(), store))
    )
    store.away = True
    with pytest.raises(StoreUnavailableError):
        await ask(away, mode="ingest", documents=[GOOD])
