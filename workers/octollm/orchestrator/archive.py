"""Stores dead letters, marks dropped ones, and fails a task whose own message could not be processed.

Deliberately simple: fixed SQL and neither recipes nor `decide`, because that code may be what failed on the message.
"""

from collections.abc import Sequence

import asyncpg
import orjson
import structlog

from octollm.contracts import DeadDrop, DeadLetter, read
from octollm.contracts.ids import is_task_id, lane_of, parse_message_id
from octollm.contracts.tenants import claimed_tenant, dead_letter_tenants
from octollm.database.pool import Connection, Pool, transaction
from octollm.database.queries import queries
from octollm.errors import ContractError, StoreUnavailableError
from octollm.orchestrator import poison, store
from octollm.orchestrator.callbacks import CallbackOutbox
from octollm.orchestrator.intake import InvalidMessage
from octollm.orchestrator.messages import MessageBuilder
from octollm.orchestrator.service import Answer
from octollm.orchestrator.task_events import TaskEvent
from octollm.protocol.fields import clean
from octollm.protocol.handoff import Entry

_SQL = queries("octollm.orchestrator", "store")
_log = structlog.get_logger(__name__)
_REQUESTS = frozenset({"task.cancel.v1", "task.redrive.v1"})


class Archive:
    """Processes `dead`."""

    def __init__(self, pool: Pool, messages: MessageBuilder, callbacks: CallbackOutbox | None = None) -> None:
        """`callbacks`: stores who is notified of a task's end; by default only those that submissions name."""
        self._pool = pool
        self._messages = messages
        self._callbacks = callbacks or CallbackOutbox()

    async def handle(self, entries: Sequence[Entry]) -> list[Answer | Exception]:
        """Process entries one by one.

        Return what follows from each, in order; an exception for one that failed.

        Raises StoreUnavailableError while Postgres is unavailable.
        """
        return [await self._handle_one(entry) for entry in entries]

    async def _handle_one(self, entry: Entry) -> Answer | Exception:
        try:
            if clean(entry.fields.get(b"type")) == "dead.drop.v1":
                return await self._drop(read(DeadDrop, entry.fields.get(b"body", b"")))
            return await self._store(read(DeadLetter, entry.fields.get(b"body", b"")), entry)
        except ContractError as error:
            return InvalidMessage(error.reason, str(error))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  only this message may be affected
            _log.exception("a dead letter cannot be stored", stream=entry.stream, entry=entry.id)
            return error

    async def _store(self, dead_letter: DeadLetter, entry: Entry) -> Answer:
        step = parse_message_id(dead_letter.id)
        task = step.task if step else dead_letter.id if is_task_id(dead_letter.id) else None
        # A message id that names only a task belongs to its first run.
        run = step.run if step else 1
        async with transaction(self._pool) as connection:
            await connection.execute(
                _SQL["insert_dead_letter"],
                f"{entry.stream} {entry.id}",
                claimed_tenant(dead_letter.tenant),
                task,
                dead_letter.reason,
                dead_letter.message,
                orjson.loads(entry.fields[b"body"]),
                entry.fields.get(b"original", b""),
                run,
            )
            traceparent = clean(entry.fields.get(b"traceparent"))
            row, events = await _fail_task(connection, dead_letter, traceparent, task, run)
            decision = None if row is None else poison.decision_of(row, events)
            if decision is not None:
                await self._callbacks.store(connection, [decision])
        return () if decision is None else self._messages.operations(decision)

    async def _drop(self, drop: DeadDrop) -> Answer:
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["drop_dead_letter"], drop.dead_letter, dead_letter_tenants(drop.tenant))
        return ()


async def _fail_task(
    connection: Connection, dead_letter: DeadLetter, traceparent: str, task: str | None, run: int
) -> tuple[asyncpg.Record | None, list[TaskEvent]]:
    """Fail the task of a message from `tasks` or `steps.done`.

    Return its row if it failed, and new events.

    An arm's dead letter does not fail its task here: the worker has published the step's end on `steps.done`.
    """
    lane, _, topic = dead_letter.stream.partition("}:")
    # A request about a task is not part of it: the task continues without it.
    is_own = (topic == "steps.done" and dead_letter.type not in _REQUESTS) or topic.startswith("tasks:")
    if task is None or not is_own or dead_letter.stage != "after_admission" or lane != "{" + lane_of(task):
        return None, []
    now = await store.clock(connection)
    detail = f"its message on {topic} became a dead letter ({dead_letter.reason}): {dead_letter.message}"[:4000]
    row, events = await poison.fail_task(connection, task, run, detail, now)
    if row is None and topic.startswith("tasks:"):
        tenant = claimed_tenant(dead_letter.tenant) or "unknown"
        row = await connection.fetchrow(_SQL["poison_unknown_task"], task, tenant, detail, traceparent, now)
        events = [] if row is None else await poison.record_end(connection, row, detail, now)
    if row is None:
        # Delivered again: what followed may have been lost between the commit and its publication.
        return await connection.fetchrow(_SQL["poisoned_task"], task, run), []
    return row, events
