"""The memory worker and the way back: what finished tasks leave, once, whatever breaks; and what goes again."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from octollm.contracts import TaskResult, read, write
from octollm.contracts.ids import new_task_id, utc_now
from octollm.database.pool import Pool, open_pool
from octollm.errors import ContractError, EmbeddingError, StoreUnavailableError
from octollm.memory.deletion import delete_marked, delete_task_memory
from octollm.memory.dense import Dense
from octollm.memory.indexer import Indexer
from octollm.memory.stored_memory import StoredMemory
from octollm.protocol.handoff import Entry
from tests.helpers.memory_fakes import HashingEmbedder, ListStore
from tests.helpers.orchestrators import entry_of, rows, submitted

ADA, PR = {"type": "user", "name": "ada"}, {"type": "issue", "name": "o/r#7"}
KEEP: dict[str, Any] = {
    "title": "Leases are lost",
    "text": "A worker loses its lease under load.",
    "collection": "issues",
    "attributes": {"repository": "o/r"},
    "entities": [{**ADA, "attributes": {"site": "x"}}],
    "relationships": [{"from": ADA, "type": "wrote", "to": PR}],
}


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """Connections that speak JSON."""
    made = await open_pool(dsn, 4)
    yield made
    await made.close()


@pytest.fixture
def store():
    return ListStore()


@pytest.fixture
def memory_store(pool, store):
    return StoredMemory(pool, Dense(HashingEmbedder(), store))


@pytest.fixture
def memory(pool, memory_store):
    return Indexer(pool, memory_store.documents)


async def finished(orchestrator, pool, memory=None, state="succeeded", **changes) -> Entry:
    """A task that has ended, and the message that says so."""
    task = new_task_id("l0")
    await orchestrator.handle([submitted(task, goal="triage it")])
    async with pool.acquire() as connection:
        await connection.execute("UPDATE tasks SET state = $2, memory = $3::jsonb WHERE id = $1", task, state, memory)
    return message(task, state=state, **changes)


def message(task, **changes) -> Entry:
    result = TaskResult(
        **{
            "task": task,
            "run": 1,
            "tenant": "default",
            "state": "succeeded",
            "reason": None,
            "detail": None,
            "answer": {"labels": ["bug"]},
            "steps": [],
            "mode": "deterministic",
            "redactions": {},
            "finished_at": utc_now(),
            **changes,
        }
    )
    return entry_of("task.result.v1", task, "default", "", write(result), f"results {task}")


async def table(pool, name):
    return [dict(row) for row in await rows(pool, f"SELECT * FROM {name} ORDER BY 1, 2")]


async def all_there_is(pool, store):
    names = (
        "documents",
        "passages",
        "artifacts",
        "entities",
        "relationships",
        "entity_sources",
        "relationship_sources",
    )
    return {name: await table(pool, name) for name in names} | {"points": dict(store.points)}


async def indexed(pool) -> list[bool]:
    return [row["at"] for row in await rows(pool, "SELECT indexed_at IS NOT NULL AS at FROM tasks ORDER BY id")]


async def test_a_task_leaves_an_artifact_a_document_and_what_it_says(orchestrator, pool, memory, memory_store):
    one = await finished(orchestrator, pool, KEEP)
    assert await memory.handle([one]) == [None]
    (artifact,) = await table(pool, "artifacts")
    assert (artifact["title"], artifact["answer"]) == ("Leases are lost", {"labels": ["bug"]})
    assert artifact["attributes"] == {"repository": "o/r"}
    hits = await memory_store.search("default", "lost lease", collection="issues", attributes={"repository": "o/r"})
    assert [(hit.document, hit.heading) for hit in hits.passages] == [(one.id, "Leases are lost")]
    assert set(hits.passages[0].ranks) == {"dense", "keyword"}
    entities = {(row["type"], row["name"]): row for row in await table(pool, "entities")}
    assert set(entities) == {("user", "ada"), ("issue", "o/r#7")}
    assert entities["user", "ada"]["attributes"] == {"site": "x"}
    (relationship,) = await table(pool, "relationships")
    assert relationship["from_entity"] == entities["user", "ada"]["id"]
    assert (relationship["type"], relationship["to_entity"]) == ("wrote", entities["issue", "o/r#7"]["id"])
    assert await indexed(pool) == [True]


async def test_a_large_answer_is_taken_from_the_task(orchestrator, pool, memory):
    large = {"labels": ["bug"] * 5000}
    one, other = [await finished(orchestrator, pool, KEEP, answer=None, answer_bytes=40_000) for _ in range(2)]
    small = await finished(orchestrator, pool, KEEP)
    await pool.execute("UPDATE tasks SET result = jsonb_build_object('answer', $1::jsonb)", large)
    replaced = read(TaskResult, other.fields[b"body"]).task
    await pool.execute("UPDATE tasks SET run = 2, result = NULL WHERE id = $1", replaced)
    assert await memory.handle([one, other, small]) == [None] * 3
    kept = {row["task"]: row["answer"] for row in await table(pool, "artifacts")}
    # That of a run that was replaced is written by the orchestrator with the redrive.
    assert kept == {
        read(TaskResult, one.fields[b"body"]).task: large,
        read(TaskResult, small.fields[b"body"]).task: {"labels": ["bug"]},
    }


async def test_without_a_wish_and_without_success_there_is_an_artifact_only(orchestrator, pool, memory, store):
    plain = await finished(orchestrator, pool)
    failed = await finished(orchestrator, pool, KEEP, state="failed", reason="judged", detail="no", answer=None)
    assert await memory.handle([plain, failed]) == [None, None]
    artifacts = {row["task"]: row for row in await table(pool, "artifacts")}
    assert {row["title"] for row in artifacts.values()} == {"triage it"}
    assert artifacts[failed.id]["answer"] is None
    assert await table(pool, "documents") == await table(pool, "entities") == []
    assert store.points == {}
    assert await indexed(pool) == [True, True]


async def test_the_same_again_changes_nothing(orchestrator, pool, memory, store):
    one = await finished(orchestrator, pool, KEEP)
    await memory.handle([one, one])
    before = await all_there_is(pool, store)
    assert await memory.handle([one]) == [None]
    await rows(pool, "UPDATE tasks SET indexed_at = NULL RETURNING 1")
    assert await memory.handle([one, one]) == [None, None]
    after = await all_there_is(pool, store)
    assert after == before
    assert await indexed(pool) == [True]


async def test_a_missing_store_delays_and_loses_nothing(orchestrator, pool, memory, store, memory_store):
    kept, plain = await finished(orchestrator, pool, KEEP), await finished(orchestrator, pool)
    store.away = True
    waits, done = await memory.handle([kept, plain])
    assert isinstance(waits, StoreUnavailableError)
    assert done is None
    assert sorted(await indexed(pool)) == [False, True]
    store.away = False
    assert await memory.handle([kept]) == [None]
    assert await indexed(pool) == [True, True]
    assert len(store.points) == 1


async def test_a_provider_that_refuses_delays_too(orchestrator, pool):
    class Refusing(HashingEmbedder):
        async def embed(self, _texts):
            raise EmbeddingError("the key is not accepted")

    memory = Indexer(pool, StoredMemory(pool, Dense(Refusing(), ListStore())).documents)
    (fault,) = await memory.handle([await finished(orchestrator, pool, KEEP)])
    assert isinstance(fault, StoreUnavailableError)
    assert "the key is not accepted" in str(fault)
    assert await indexed(pool) == [False]


async def test_postgres_unavailable_is_transient(orchestrator, pool, memory):
    one = await finished(orchestrator, pool)
    await pool.close()
    with pytest.raises(StoreUnavailableError):
        await memory.handle([one])


async def test_a_bad_message_costs_only_itself(orchestrator, pool, memory):
    good = await finished(orchestrator, pool, KEEP)
    odd = await finished(orchestrator, pool, {**KEEP, "colour": "red"})
    wrong = entry_of("task.status.v1", "x", "default", "", good.fields[b"body"], "1")
    cut = entry_of("task.result.v1", "x", "default", "", b'{"task"', "2")
    answers = await memory.handle([wrong, odd, good, cut])
    assert [type(answer) for answer in answers] == [ContractError, ContractError, type(None), ContractError]
    assert "tasks.memory: colour" in str(answers[1])
    assert [row["task"] for row in await table(pool, "artifacts")] == [good.id]


async def test_a_row_that_postgres_refuses_costs_only_its_own_message(orchestrator, pool, memory):
    good = await finished(orchestrator, pool, KEEP)
    # No document can have this name in a tenant's index: the key is longer than an index takes.
    long = "".join(f"{number:x}" for number in range(20_000))
    odd = await finished(orchestrator, pool, {**KEEP, "entities": [{"type": "t", "name": long}]})
    broken, done = await memory.handle([odd, good])
    assert isinstance(broken, asyncpg.PostgresError)
    assert done is None
    assert [row["task"] for row in await table(pool, "artifacts")] == [good.id]


async def test_an_older_run_leaves_its_artifact_and_no_document(orchestrator, pool, memory):
    older = await finished(orchestrator, pool, KEEP)
    await rows(pool, "UPDATE tasks SET run = 2 RETURNING 1")
    assert await memory.handle([older]) == [None]
    assert [row["run"] for row in await table(pool, "artifacts")] == [1]
    assert await table(pool, "documents") == []
    assert await indexed(pool) == [False]
    newer = message(older.id, run=2)
    assert await memory.handle([newer]) == [None]
    assert [row["run"] for row in await table(pool, "artifacts")] == [1, 2]
    assert len(await table(pool, "documents")) == 1
    assert await indexed(pool) == [True]


async def test_another_tenants_message_and_a_purged_task_leave_nothing(orchestrator, pool, memory):
    one = await finished(orchestrator, pool, KEEP, tenant="other")
    gone = message(new_task_id("l0"))
    assert await memory.handle([one, gone]) == [None, None]
    assert await table(pool, "artifacts") == await table(pool, "documents") == []


async def test_what_a_task_alone_left_is_deleted(orchestrator, pool, memory, memory_store, store):
    one = await finished(orchestrator, pool, KEEP)
    other = await finished(orchestrator, pool, {**KEEP, "relationships": [], "title": "Another"})
    await memory.handle([one, other])
    await delete_task_memory(pool, memory_store.documents, [one.id])
    left = await all_there_is(pool, store)
    assert [row["name"] for row in left["documents"]] == [other.id]
    assert [point.document for point in left["points"].values()] == [other.id]
    assert [row["task"] for row in left["artifacts"]] == [other.id]
    # Ada is still spoken of, the issue and what she did with it are not.
    assert [row["name"] for row in left["entities"]] == ["ada"]
    assert left["relationships"] == left["relationship_sources"] == []
    await delete_task_memory(pool, memory_store.documents, [one.id, other.id])
    assert not any((await all_there_is(pool, store)).values())
    # And the tasks themselves can go now.
    assert len(await rows(pool, "DELETE FROM tasks RETURNING id")) == 2


async def test_what_is_marked_for_the_purge_is_deleted_and_never_indexed_again(
    orchestrator, pool, memory, memory_store, store
):
    one, kept = await finished(orchestrator, pool, KEEP), await finished(orchestrator, pool, KEEP)
    await memory.handle([one, kept])
    await rows(
        pool, f"UPDATE tasks SET purge_requested_at = now(), indexed_at = NULL WHERE id = '{one.id}' RETURNING 1"
    )
    assert await delete_marked(pool, memory_store.documents, 10) == 1
    assert await delete_marked(pool, memory_store.documents, 10) == 0
    assert await memory.handle([one]) == [None]
    assert [row["task"] for row in await table(pool, "artifacts")] == [kept.id]
    assert [point.document for point in store.points.values()] == [kept.id]
    assert sorted(await indexed(pool)) == [False, True]


async def test_a_purge_in_the_middle_of_remembering_leaves_nothing(orchestrator, pool, store):
    one = await finished(orchestrator, pool, KEEP)

    class Purging(HashingEmbedder):
        async def embed(self, texts):
            await rows(pool, "UPDATE tasks SET purge_requested_at = now() RETURNING 1")
            return await super().embed(texts)

    memory = Indexer(pool, StoredMemory(pool, Dense(Purging(), store)).documents)
    assert await memory.handle([one]) == [None]
    assert store.points == {}
    assert await table(pool, "documents") == []
    assert await indexed(pool) == [False]


async def test_deleting_waits_for_the_store_and_is_finished_later(orchestrator, pool, memory, memory_store, store):
    one = await finished(orchestrator, pool, KEEP)
    await memory.handle([one])
    store.away = True
    with pytest.raises(StoreUnavailableError):
        await delete_task_memory(pool, memory_store.documents, [one.id])
    assert len(await table(pool, "artifacts")) == 1
    store.away = False
    await delete_task_memory(pool, memory_store.documents, [one.id])
    assert not any((await all_there_is(pool, store)).values())
