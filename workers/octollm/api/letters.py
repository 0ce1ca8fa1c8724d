"""Dead letters as they are stored: redacted where they never passed admission."""

from typing import Any

import asyncpg

from octollm.api.cursor import read_cursor
from octollm.api.pages import cut
from octollm.api.parameters import LetterFilter
from octollm.api.store import Store
from octollm.contracts.answers import DeadLetter, DeadLetterItem, DeadLetterPage
from octollm.contracts.ids import as_text, parse_message_id
from octollm.contracts.tenants import letters_of
from octollm.database.queries import queries
from octollm.errors import AbsentError

_SQL = queries("octollm.api", "letters")


async def list_letters(store: Store, tenant: str, asked: LetterFilter) -> DeadLetterPage:
    """Newest first, without what they held."""
    (before,) = read_cursor(asked.cursor, int)
    which = (asked.reason, asked.task, asked.since, asked.until, asked.all)
    async with store.reading() as connection:
        rows = await connection.fetch(_SQL["list"], letters_of(tenant), *which, before, asked.limit + 1)
    items, following = cut(rows, asked.limit, lambda row: DeadLetterItem(**_facts(row)), lambda row: (row["id"],))
    return DeadLetterPage(items=items, next=following)


async def letter(store: Store, tenant: str, number: int) -> DeadLetter:
    """One, with what is kept of it."""
    async with store.reading() as connection:
        row = await connection.fetchrow(_SQL["one"], letters_of(tenant), number)
    if row is None:
        raise AbsentError
    kept: bytes = row["original"]
    return DeadLetter(**_facts(row), letter=row["body"], stored_bytes=len(kept), text=_text(kept))


def _facts(row: asyncpg.Record) -> dict[str, Any]:
    same = {name: row[name] for name in ("id", "tenant", "task", "reason", "message")}
    told = {name: row["body"][name] for name in ("stage", "stream", "type", "bytes")}
    times = {name: as_text(row[name]) for name in ("received_at", "redriven_at", "dropped_at") if row[name] is not None}
    step = parse_message_id(row["body"]["id"])
    run = None if row["task"] is None else step.run if step else 1
    return {**same, **told, **times, "run": run}


def _text(kept: bytes) -> str | None:
    try:
        return kept.decode()
    except UnicodeDecodeError:
        return None
