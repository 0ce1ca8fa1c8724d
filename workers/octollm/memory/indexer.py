"""Indexes finished tasks.

It stores an artifact of each and, if its recipe asks for it, a document, entities and relationships.

Handles batches of messages from `results`. Idempotent: `tasks.indexed_at` is set last, so a task whose indexing a crash
interrupted is found by its absence. While a store is unavailable, indexing is delayed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog

from octollm.contracts import TaskResult, read
from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.errors import ContractError, EmbeddingError, StoreUnavailableError, VectorStoreError
from octollm.memory import graph
from octollm.memory.documents import Documents
from octollm.memory.facts import TaskMemory, parse_task_memory
from octollm.ports import Document
from octollm.protocol.fields import clean
from octollm.protocol.handoff import Entry

_SQL = queries("octollm.memory", "index")
_TYPE = "task.result.v1"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Finished:
    """A result, and what is needed of its task's row."""

    result: TaskResult
    goal: str
    newest: bool
    """Whether it is the result of the newest run; only that one becomes a document."""
    memory: TaskMemory | None


class Indexer:
    """Indexes the results of tasks: `handle` is the batch handler of the topic `results`.

    Makes no loop and no connection of its own.
    """

    def __init__(self, pool: Pool, documents: Documents) -> None:
        """`pool`: to the tasks' database, open. `documents`: where results with a document are ingested."""
        self._pool = pool
        self._documents = documents

    async def handle(self, messages: Sequence[Entry]) -> list[Exception | None]:
        """Index a batch. Return for each message, in order, None or its error.

        A ContractError is permanent, a StoreUnavailableError temporary. Raises StoreUnavailableError when Postgres is
        unavailable.
        """
        answers: list[Exception | None] = []
        results: list[TaskResult] = []
        for message in messages:
            try:
                results.append(_read(message))
                answers.append(None)
            except ContractError as error:
                answers.append(error)
        faults = await self._index(results)
        remaining = iter(results)
        return [answer or faults.get(_key(next(remaining))) for answer in answers]

    async def _index(self, results: Sequence[TaskResult]) -> Mapping[tuple[str, int], Exception]:
        """Index results and return the errors by task and run."""
        try:
            finished, faults = await self._record(results)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  an error must affect its own message only
            if len(results) == 1:
                _log.exception("failed to index a result", task=results[0].task)
                return {_key(results[0]): error}
            alone = [await self._index([result]) for result in results]
            return {key: fault for found in alone for key, fault in found.items()}
        for one in finished:
            try:
                await self._store_document(one)
            except StoreUnavailableError as error:
                faults[_key(one.result)] = error
            except (EmbeddingError, VectorStoreError) as error:
                # An operator can fix the configuration; the message is retried until then.
                faults[_key(one.result)] = StoreUnavailableError(error.message)
            except Exception as error:  # noqa: BLE001  as above
                _log.exception("failed to index the document of a task", task=one.result.task)
                faults[_key(one.result)] = error
        return faults

    async def _record(self, results: Sequence[TaskResult]) -> tuple[list[_Finished], dict[tuple[str, int], Exception]]:
        """Write what belongs into Postgres alone; return the results that also have a document."""
        faults: dict[tuple[str, int], Exception] = {}
        found: dict[tuple[str, int], _Finished] = {}
        async with transaction(self._pool) as connection:
            rows = {row["id"]: row for row in await connection.fetch(_SQL["finished"], [one.task for one in results])}
            for result in results:
                row = rows.get(result.task)
                # A missing task was purged, or is marked for it; an indexed one is complete.
                if row is None or row["tenant"] != result.tenant or (row["run"] == result.run and row["indexed"]):
                    continue
                if result.answer_bytes is not None and row["run"] != result.run:
                    continue  # a redrive has replaced the answer; the orchestrator has written the artifact
                try:
                    found[_key(result)] = _finished(result, row)
                except ContractError as error:
                    faults[_key(result)] = error
            await connection.execute(_SQL["put_artifacts"], [_artifact(one) for one in found.values()])
            statements = [
                graph.TaskStatements(one.result.task, one.result.tenant, one.memory)
                for one in found.values()
                if one.memory
            ]
            await graph.add_statements(connection, statements)
            done = [one for one in found.values() if one.newest and one.memory is None]
            await connection.execute(_SQL["set_indexed"], [_run(one.result) for one in done])
        return [one for one in found.values() if one.memory], faults

    async def _store_document(self, one: _Finished) -> None:
        if one.memory is None:
            return
        document = Document(
            name=one.result.task,
            # As a heading, the title belongs to each of the passages.
            text=f"# {' '.join(one.memory.title.split())}\n\n{one.memory.text}",
            collection=one.memory.collection,
            media="markdown",
            attributes=one.memory.attributes,
        )
        await self._documents.ingest(one.result.tenant, document, one.result.task)
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["set_indexed"], [_run(one.result)])
            exists = await connection.fetchval(_SQL["is_not_purged"], one.result.task)
        if not exists:
            # The purge ran in between, when the document did not exist yet.
            await self._documents.delete(one.result.tenant, document.collection, document.name)


def _read(message: Entry) -> TaskResult:
    if clean(message.fields.get(b"type")) != _TYPE:
        raise ContractError("schema", f"field type must be {_TYPE}")
    return read(TaskResult, message.fields.get(b"body", b""))


def _finished(result: TaskResult, row: asyncpg.Record) -> _Finished:
    newest = row["run"] == result.run
    has_memory = newest and result.state == "succeeded" and row["memory"] is not None
    return _Finished(result, row["goal"] or "", newest, parse_task_memory(row["memory"]) if has_memory else None)


def _artifact(one: _Finished) -> dict[str, Any]:
    memory, result = one.memory, one.result
    return {
        **_run(result),
        "tenant": result.tenant,
        "title": memory.title if memory else one.goal,
        "text": memory.text if memory else "",
        "answer": result.answer,
        "stored": result.answer_bytes is not None,
        "attributes": memory.attributes if memory else {},
        "created_at": result.finished_at,
    }


def _run(result: TaskResult) -> dict[str, Any]:
    return {"task": result.task, "run": result.run}


def _key(result: TaskResult) -> tuple[str, int]:
    return result.task, result.run
