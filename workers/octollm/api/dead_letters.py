"""Dead letters as they are stored: redacted if the message never passed admission."""

from typing import Any

import asyncpg

from octollm.api.cursor import read_cursor
from octollm.api.pages import cut
from octollm.api.parameters import DeadLetterFilter
from octollm.api.store import Store
from octollm.contracts.answers import DeadLetter, DeadLetterItem, DeadLetterPage
from octollm.contracts.ids import as_text, parse_message_id
from octollm.contracts.tenants import dead_letter_tenants
from octollm.database.queries import queries
from octollm.errors import AbsentError

_SQL = queries("octollm.api", "dead_letters")


async def list_dead_letters(store: Store, tenant: str, filters: DeadLetterFilter) -> DeadLetterPage:
    """Return one page of dead letters, newest first, without the stored messages."""
    (before,) = read_cursor(filters.cursor, int)
    where = (filters.reason, filters.task, filters.since, filters.until, filters.all)
    tenants = dead_letter_tenants(tenant)
    async with store.reading() as connection:
        rows = await connection.fetch(_SQL["list"], tenants, *where, before, filters.limit + 1)
    items, cursor = cut(rows, filters.limit, lambda row: DeadLetterItem(**_facts(row)), lambda row: (row["id"],))
    return DeadLetterPage(items=items, next=cursor)


async def dead_letter(store: Store, tenant: str, number: int) -> DeadLetter:
    """Return the dead letter with the id `number` and its stored message. Raises AbsentError."""
    async with store.reading() as connection:
        row = await connection.fetchrow(_SQL["one"], dead_letter_tenants(tenant), number)
    if row is None:
        raise AbsentError
    original: bytes = row["original"]
    return DeadLetter(**_facts(row), dead_letter=row["body"], stored_bytes=len(original), text=_text(original))


def _facts(row: asyncpg.Record) -> dict[str, Any]:
    columns = {name: row[name] for name in ("id", "tenant", "task", "reason", "message")}
    fields = {name: row["body"][name] for name in ("stage", "stream", "type", "bytes")}
    times = {name: as_text(row[name]) for name in ("received_at", "redriven_at", "dropped_at") if row[name] is not None}
    step = parse_message_id(row["body"]["id"])
    run = None if row["task"] is None else step.run if step else 1
    return {**columns, **fields, **times, "run": run}


def _text(original: bytes) -> str | None:
    try:
        return original.decode()
    except UnicodeDecodeError:
        return None
