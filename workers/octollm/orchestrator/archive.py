"""Stores dead letters by fixed SQL, marks those that are dropped, and ends a task whose own message could not be
worked on.

Deliberately simple: nothing here runs recipes or decides, since that code may be what could not get over the message.
"""

from collections.abc import Sequence

import asyncpg
import orjson
import structlog

from octollm.contracts import DeadDrop, DeadLetter, TaskResult, read
from octollm.contracts.ids import as_text, lane_of, parse_message_id, utc_now
from octollm.contracts.tenants import claimed_tenant, dead_letter_tenants
from octollm.database.pool import Connection, Pool, transaction
from octollm.database.queries import queries
from octollm.errors import ContractError, StoreUnavailableError
from octollm.orchestrator.messages import Answer, Incoming, Outgoing, StatusUpdate, Unreadable
from octollm.orchestrator.rows import event_row
from octollm.orchestrator.task_events import Told

_SQL = queries("octollm.orchestrator", "store")
_log = structlog.get_logger(__name__)
_REQUESTS = frozenset({"task.cancel.v1", "task.redrive.v1"})


class Archive:
    """Works on `dead`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def handle(self, messages: Sequence[Incoming]) -> list[Answer | Exception]:
        """An answer per message, in order. Raises StoreUnavailableError while Postgres is away."""
        return [await self._alone(message) for message in messages]

    async def _alone(self, message: Incoming) -> Answer | Exception:
        """Only its own message may pay for a fault."""
        try:
            return await self._store(message)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is
            _log.exception("a dead letter cannot be stored", letter=message.entry)
            return error

    async def _store(self, message: Incoming) -> Answer:
        try:
            if message.type == "dead.drop.v1":
                return await self._drop(read(DeadDrop, message.body))
            letter = read(DeadLetter, message.body)
        except ContractError as error:
            return Unreadable(error.reason, str(error))
        step = parse_message_id(letter.id)
        task = step.task if step else letter.id if _is_task(letter.id) else None
        # Whatever names a task alone is about its intake, and that is the first run's.
        run = step.run if step else 1
        async with transaction(self._pool) as connection:
            body = orjson.loads(message.body)
            await connection.execute(
                _SQL["insert_letter"],
                message.entry,
                claimed_tenant(letter.tenant),
                task,
                letter.reason,
                letter.message,
                body,
                message.original,
                run,
            )
            row, events = await _poison(connection, letter, message.traceparent, task, run)
        if row is None:
            return Outgoing()
        result = TaskResult.model_validate(row["result"])
        return Outgoing(events=events, traceparent=message.traceparent, status=_status(row, result.kind), result=result)

    async def _drop(self, drop: DeadDrop) -> Answer:
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["drop_letter"], drop.letter, dead_letter_tenants(drop.tenant))
        return Outgoing()


def _is_task(text: str) -> bool:
    return parse_message_id(f"{text}.1.a.0.1") is not None


async def _poison(
    connection: Connection, letter: DeadLetter, traceparent: str, task: str | None, run: int
) -> tuple[asyncpg.Record | None, tuple[Told, ...]]:
    """For what lay on `tasks` or `steps.done`: an arm's dead letter reaches its task through `steps.done` instead."""
    _, _, topic = letter.stream.partition("}:")
    # A request about a task says nothing about it: that goes on without it.
    own = (topic == "steps.done" and letter.type not in _REQUESTS) or topic.startswith("tasks:")
    if task is None or not own or letter.stage != "after_admission":
        return None, ()
    if letter.stream.partition("}")[0] != "{" + lane_of(task):
        return None, ()
    now = utc_now()
    detail = f"its message on {topic} was given up on ({letter.reason}): {letter.message}"[:4000]
    row = await connection.fetchrow(_SQL["poison_task"], task, detail, now, run)
    if row is None and topic.startswith("tasks:"):
        row = await connection.fetchrow(
            _SQL["poison_unknown_task"],
            task,
            claimed_tenant(letter.tenant) or "unknown",
            detail,
            traceparent,
            now,
        )
    if row is None:
        # Met again: the first answer may have been lost between its commit and its publication.
        return await connection.fetchrow(_SQL["poisoned_task"], task, run), ()
    await connection.execute(_SQL["cancel_steps"], task, row["run"])
    told = Told.of(
        task, row["run"], row["seq"], row["tenant"], now, "finished", detail, state="failed", reason="poison"
    )  # fmt: skip
    await connection.execute(_SQL["insert_events"], [event_row(told)])
    return row, (told,)


def _status(row: asyncpg.Record, kind: str | None) -> StatusUpdate:
    fields: dict[str, str | bytes] = {
        "task": row["id"],
        "tenant": row["tenant"],
        "state": row["state"],
        "run": str(row["run"]),
        "stored": "1",
        "reason": row["reason"],
        "detail": row["detail"],
        "created_at": as_text(row["received_at"]),
        "updated_at": as_text(row["updated_at"]),
        "result": orjson.dumps(row["result"]),
    }
    if kind is not None:
        fields["kind"] = kind
    return StatusUpdate(row["id"], row["version"], ended=True, fields=fields)
