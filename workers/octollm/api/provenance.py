"""One run of a task as one document: who asked for what, what was done, when, by whom, and what came of it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import asyncpg
import orjson

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
Place = tuple[str | None, int | None]


async def provenance(store: Store, tenant: str, task: str, wanted: int | None) -> Provenance:
    """`wanted`: the run; None: the newest. All of it is of one moment."""
    async with store.reading() as connection:
        row = await connection.fetchrow(_SQL["task"], tenant, task, wanted)
        if row is None:
            raise AbsentError
        run = row["run"]
        steps = await connection.fetch(_SQL["steps"], tenant, task, run)
        attempts = await connection.fetch(_SQL["attempts"], tenant, task, run)
        calls = await connection.fetch(_SQL["model_calls"], tenant, task, run)
        finished = await connection.fetchrow(_SQL["finished"], tenant, task, run)
        cost = await cost_of_run(connection, tenant, task, run)
    tried: dict[Place, list[AttemptItem]] = defaultdict(list)
    asked: dict[Place, list[ModelCall]] = defaultdict(list)
    for one in attempts:
        tried[one["step"], one["round"]].append(attempt_item(one))
    for one in calls:
        asked[one["step"], one["round"]].append(_call(one))
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
        steps=list(_steps(steps, row["plan"] or {}, tried, asked)),
        other_model_calls=[call for left in asked.values() for call in left],
        cost=cost,
        result=_result(row, finished),
        events=row["events"],
    )


def _admission(row: asyncpg.Record) -> Admission:
    same = ("source", "idempotency_key", "fingerprint", "redactions", "traceparent")
    return Admission(received_at=as_text(row["received_at"]), **{name: row[name] for name in same})


def _steps(
    rows: Sequence[asyncpg.Record],
    plan: dict[str, Any],
    tried: dict[Place, list[AttemptItem]],
    asked: dict[Place, list[ModelCall]],
) -> Iterator[StepProvenance]:
    """Takes out of `asked` what belongs to a step."""
    planned = {step["name"]: step for step in plan.get("steps", ())}
    for row in rows:
        step = planned.get(row["step"], {})
        place = row["step"], row["round"]
        same = ("step", "round", "arm", "state", "sent_by", "error")
        yield StepProvenance(
            **{name: row[name] for name in same},
            needs=step.get("needs", []),
            references=sorted(set(_references(step.get("input")))),
            sent_at=as_text(row["sent_at"]),
            output=_output(row),
            attempts=tried.pop(place, []),
            model_calls=asked.pop(place, []),
        )


def _references(template: object) -> Iterator[str]:
    """Every `{$: expression}` in a step's input."""
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
    apart = {"cost_usd", "answered_at"}
    same = {name: row[name] for name in ModelCall.model_fields if name not in apart}
    return ModelCall(**same, cost_usd=money(row), answered_at=as_text(row["answered_at"]))


def _result(row: asyncpg.Record, finished: asyncpg.Record | None) -> ResultProvenance | None:
    if finished is None:
        return None
    told = finished["body"]
    newest = row["result"] if row["run"] == row["runs"] else None
    return ResultProvenance(
        state=told["state"],
        reason=told.get("reason"),
        detail=told.get("detail"),
        finished_at=as_text(finished["at"]),
        mode=None if newest is None else newest["mode"],
        answer=None if newest is None else _digest(newest["answer"]),
    )
