"""Remembers finished tasks: an artifact of each, and of those that say so a document, entities and relationships.

Works on `results`, many messages at a time. Doing it twice changes nothing; `tasks.indexed_at` is set last, so that
whoever looks for tasks without it finds every one that a crash cut short. A store that is away delays it.
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
from octollm.memory.facts import Remembered, remembered
from octollm.ports import Document
from octollm.protocol.fields import clean
from octollm.protocol.handoff import Entry

_SQL = queries("octollm.memory", "index")
_TYPE = "task.result.v1"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Finished:
    """A result with its task's row."""

    result: TaskResult
    goal: str
    newest: bool
    """Of the task's latest run: only that is remembered as a document."""
    remembered: Remembered | None


class Memory:
    """Works on `results`."""

    def __init__(self, pool: Pool, documents: Documents) -> None:
        self._pool = pool
        self._documents = documents

    async def handle(self, messages: Sequence[Entry]) -> list[Exception | None]:
        """For each message, in order: None when it is remembered, or what went wrong with it alone.

        A ContractError can never be worked on; a StoreUnavailableError will pass. Raises StoreUnavailableError while
        Postgres is away.
        """
        answers: list[Exception | None] = []
        results: list[TaskResult] = []
        for message in messages:
            try:
                results.append(_read(message))
                answers.append(None)
            except ContractError as error:
                answers.append(error)
        faults = await self._remember(results)
        left = iter(results)
        return [answer or faults.get(_key(next(left))) for answer in answers]

    async def _remember(self, results: Sequence[TaskResult]) -> Mapping[tuple[str, int], Exception]:
        """Faults by task and run."""
        try:
            finished, faults = await self._record(results)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, only its own message may pay for it
            if len(results) == 1:
                _log.exception("a result cannot be remembered", task=results[0].task)
                return {_key(results[0]): error}
            alone = [await self._remember([result]) for result in results]
            return {key: fault for found in alone for key, fault in found.items()}
        for one in finished:
            try:
                await self._keep(one)
            except StoreUnavailableError as error:
                faults[_key(one.result)] = error
            except (EmbeddingError, VectorStoreError) as error:
                # Whoever runs this can mend it; until then nothing is lost.
                faults[_key(one.result)] = StoreUnavailableError(error.message)
            except Exception as error:  # noqa: BLE001  as above
                _log.exception("a document cannot be remembered", task=one.result.task)
                faults[_key(one.result)] = error
        return faults

    async def _record(self, results: Sequence[TaskResult]) -> tuple[list[_Finished], dict[tuple[str, int], Exception]]:
        """Everything that Postgres alone can do, in one transaction; what still has a document to come."""
        faults: dict[tuple[str, int], Exception] = {}
        found: dict[tuple[str, int], _Finished] = {}
        async with transaction(self._pool) as connection:
            rows = {row["id"]: row for row in await connection.fetch(_SQL["finished"], [one.task for one in results])}
            for result in results:
                row = rows.get(result.task)
                # A task that is gone was purged or is about to be; one that was remembered needs nothing more.
                if row is None or row["tenant"] != result.tenant or (row["run"] == result.run and row["remembered"]):
                    continue
                try:
                    found[_key(result)] = _finished(result, row)
                except ContractError as error:
                    faults[_key(result)] = error
            await connection.execute(_SQL["put_artifacts"], [_artifact(one) for one in found.values()])
            await graph.add(
                connection,
                [
                    graph.Said(one.result.task, one.result.tenant, one.remembered)
                    for one in found.values()
                    if one.remembered
                ],
            )
            done = [one for one in found.values() if one.newest and one.remembered is None]
            await connection.execute(_SQL["remembered"], [_run(one.result) for one in done])
        return [one for one in found.values() if one.remembered], faults

    async def _keep(self, one: _Finished) -> None:
        if one.remembered is None:
            return
        document = Document(
            name=one.result.task,
            # The title as a heading: it belongs to each of its passages.
            text=f"# {' '.join(one.remembered.title.split())}\n\n{one.remembered.text}",
            collection=one.remembered.collection,
            media="markdown",
            attributes=one.remembered.attributes,
        )
        await self._documents.ingest(one.result.tenant, document, one.result.task)
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["remembered"], [_run(one.result)])
            kept = await connection.fetchval(_SQL["is_kept"], one.result.task)
        if not kept:
            # The purge came in between: what it looked for was not there yet.
            await self._documents.forget(one.result.tenant, document.collection, document.name)


def _read(message: Entry) -> TaskResult:
    if clean(message.fields.get(b"type")) != _TYPE:
        raise ContractError("schema", f"field type must be {_TYPE}")
    return read(TaskResult, message.fields.get(b"body", b""))


def _finished(result: TaskResult, row: asyncpg.Record) -> _Finished:
    newest = row["run"] == result.run
    keeps = newest and result.state == "succeeded" and row["memory"] is not None
    return _Finished(result, row["goal"] or "", newest, remembered(row["memory"]) if keeps else None)


def _artifact(one: _Finished) -> dict[str, Any]:
    kept, result = one.remembered, one.result
    return {
        **_run(result),
        "tenant": result.tenant,
        "title": kept.title if kept else one.goal,
        "text": kept.text if kept else "",
        "answer": result.answer,
        "attributes": kept.attributes if kept else {},
        "created_at": result.finished_at,
    }


def _run(result: TaskResult) -> dict[str, Any]:
    return {"task": result.task, "run": result.run}


def _key(result: TaskResult) -> tuple[str, int]:
    return result.task, result.run
