"""The journal of answers in Postgres.

Each is written before it is used, so that no retry pays for it again.

An answer belongs to (task, run, step, swarm member, round, purpose, call, repair, what was asked). The first that is
written stays: of two workers on one step the second goes on with the answer of the first.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import asyncpg

from octollm.contracts import StepRequested
from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.models.provider import Answer, Tokens

_SQL = queries("octollm.models", "journal")
_ONE_MEMBER = 0


@dataclass(frozen=True, slots=True)
class Key:
    """What an answer belongs to."""

    step: StepRequested
    purpose: str
    call: int
    repair: int
    request_sha256: str

    @property
    def columns(self) -> tuple[object, ...]:
        """The primary key, in the table's order."""
        step = self.step
        named = (self.purpose, self.call, self.repair, self.request_sha256)
        return (step.task, step.run, step.step, _ONE_MEMBER, step.round, *named)


@dataclass(frozen=True, slots=True)
class Journalled:
    """An answer as it is kept."""

    provider: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Paid:
    """The circumstances of a call that was just made."""

    id: UUID
    """One per call; the same when the same answer is written again."""
    delivery: int
    cost_usd: Decimal | None
    asked_at: datetime
    answered_at: datetime


class Journal:
    """Reads and writes it. Both raise StoreUnavailableError when Postgres is unavailable."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, key: Key) -> Journalled | None:
        """The answer that was written before, if there is one."""
        async with transaction(self._pool) as connection:
            row = await connection.fetchrow(_SQL["find"], *key.columns)
        return None if row is None else _journalled(row)

    async def keep(self, key: Key, new: Journalled, paid: Paid) -> Journalled:
        """Write an answer; gives back the one that counts, which is another's where that was first."""
        answer, tokens = new.answer, new.answer.tokens
        used = (None,) * 4 if tokens is None else (tokens.input, tokens.output, tokens.cache_read, tokens.cache_write)
        async with transaction(self._pool) as connection:
            row = await connection.fetchrow(
                _SQL["keep"],
                *key.columns,
                key.step.tenant,
                key.step.arm,
                new.provider,
                answer.model,
                {"text": answer.text, "stop": answer.stop},
                *used,
                paid.cost_usd,
                key.step.attempt,
                paid.delivery,
                paid.asked_at,
                paid.answered_at,
                paid.id,
            )
        assert row is not None, "RETURNING gives the row"  # noqa: S101  both branches of the statement write one
        return _journalled(row)


def _journalled(row: asyncpg.Record) -> Journalled:
    tokens = None
    if row["input_tokens"] is not None:
        tokens = Tokens(
            row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]
        )  # fmt: skip
    kept = row["answer"]
    return Journalled(row["provider"], Answer(kept["text"], kept["stop"], row["model"], tokens))
