"""The provenance of a run: the request, every step with its attempts and model calls, and the result."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import asyncpg
import orjson

from octollm.api.callbacks import callbacks_of_run
from octollm.api.costs import cost_of_run, money
from octollm.api.store import Store
from octollm.api.tasks import attempt_item
from octollm.contracts.answers import (
    Admission,
    AttemptItem,
    Digest,
    ModelCall,
    Provenance,
    ResultProvenance,
    StepProvenance,
)
from octollm.contracts.ids import as_text
from octollm.database.queries import queries
from octollm.errors import AbsentError

_SQL = queries("octollm.api", "provenance")
StepRound = tuple[str | None, int | None]
"""A step's name and its repair round; both None for what belongs to no step."""


async def provenance(store: Store, tenant: str, task: str, wanted_run: int | None) -> Provenance:
    """Return the provenance of a run, read in one snapshot. Raises AbsentError.

    `wanted_run`: its number; None: the newest run.
    """
    async with store.reading() as connection:
        row = await connection.fetchrow(_SQL["task"], tenant, task, wanted_run)
        if row is None:
            raise AbsentError
        run = row["run"]
        steps = await connection.fetch(_SQL["steps"], tenant, task, run)
        attempts = await connection.fetch(_SQL["attempts"], tenant, task, run)
        calls = await connection.fetch(_SQL["model_calls"], tenant, task, run)
        callbacks = await callbacks_of_run(connection, tenant, task, run)
        finished = await connection.fetchrow(_SQL["finished"], tenant, task, run)
        cost = await cost_of_run(connection, tenant, task, run)
    attempts_of: dict[StepRound, list[AttemptItem]] = defaultdict(list)
    calls_of: dict[StepRound, list[ModelCall]] = defaultdict(list)
    for one in attempts:
        attempts_of[one["step"], one["round"]].append(attempt_item(one))
    for one in calls:
        calls_of[one["step"], one["round"]].append(_call(one))
    return Provenance(
        task=row["id"],
        tenant=row["tenant"],
        run=run,
        runs=row["runs"],
        kind=row["kind"],
        goal=row["submission"].get("goal"),
        submission=_digest(row["submission"]),
        admission=_admission(row),
        plan=row["plan"],
        steps=list(_steps(steps, row["plan"] or {}, attempts_of, calls_of)),
        other_model_calls=[call for remaining in calls_of.values() for call in remaining],
        cost=cost,
        result=_result(row, finished),
        callbacks=callbacks,
        events=row["events"],
    )


def _admission(row: asyncpg.Record) -> Admission:
    columns = ("source", "idempotency_key", "fingerprint", "redactions", "traceparent")
    return Admission(received_at=as_text(row["received_at"]), **{name: row[name] for name in columns})


def _steps(
    rows: Sequence[asyncpg.Record],
    plan: dict[str, Any],
    attempts_of: dict[StepRound, list[AttemptItem]],
    calls_of: dict[StepRound, list[ModelCall]],
) -> Iterator[StepProvenance]:
    """Yield every step. Removes the calls of steps from `calls_of`."""
    planned = {step["name"]: step for step in plan.get("steps", ())}
    for row in rows:
        step = planned.get(row["step"], {})
        step_round = row["step"], row["round"]
        columns = ("step", "round", "arm", "state", "sent_by", "error")
        yield StepProvenance(
            **{name: row[name] for name in columns},
            needs=step.get("needs", []),
            references=sorted(set(_references(step.get("input")))),
            sent_at=as_text(row["sent_at"]),
            output=_output(row),
            attempts=attempts_of.pop(step_round, []),
            model_calls=calls_of.pop(step_round, []),
        )


def _references(template: object) -> Iterator[str]:
    """Yield every expression in a step's input: the value of each object with the single key `$`."""
    if isinstance(template, dict):
        if len(template) == 1 and isinstance(expression := template.get("$"), str):
            yield expression
            return
        for value in template.values():
            yield from _references(value)
    elif isinstance(template, list):
        for value in template:
            yield from _references(value)


def _output(row: asyncpg.Record) -> Digest | None:
    if row["output_sha256"] is not None:
        return Digest(sha256=row["output_sha256"], stored="apart")
    return None if row["output"] is None else _digest(row["output"])


def _digest(value: object) -> Digest:
    return Digest(sha256=sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest(), stored="row")


def _call(row: asyncpg.Record) -> ModelCall:
    columns = {name: row[name] for name in ModelCall.model_fields if name not in {"cost_usd", "answered_at"}}
    return ModelCall(**columns, cost_usd=money(row), answered_at=as_text(row["answered_at"]))


def _result(row: asyncpg.Record, finished: asyncpg.Record | None) -> ResultProvenance | None:
    if finished is None:
        return None
    body = finished["body"]
    newest = row["result"] if row["run"] == row["runs"] else None
    return ResultProvenance(
        state=body["state"],
        reason=body.get("reason"),
        detail=body.get("detail"),
        finished_at=as_text(finished["at"]),
        mode=None if newest is None else newest["mode"],
        answer=None if newest is None else _digest(newest["answer"]),
    )
