"""Reads and writes tasks in Postgres, many at a time. Decides nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import asyncpg

from octollm.contracts.ids import as_text
from octollm.database.outputs import load_outputs
from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.errors import ConflictError
from octollm.orchestrator import rows
from octollm.orchestrator.state import Decision, StepRow, TaskState
from octollm.orchestrator.state_cache import StateCache

_SQL = queries("octollm.orchestrator", "store")


class Locked(NamedTuple):
    """Tasks whose rows are locked until the end of the transaction."""

    states: dict[str, TaskState]
    """By id, with the steps of their current run; only tasks that exist."""
    now: str | None
    """The database's time once all of them were locked; None if there is none."""


class KeyHolders(NamedTuple):
    """Who holds the idempotency keys of new tasks."""

    tasks: dict[tuple[str, str], str]
    """The task that holds each (tenant, key)."""
    now: str | None
    """The database's time; None if there is no key."""


async def clock(connection: Connection) -> str:
    """Return the database's time."""
    return as_text(await connection.fetchval(_SQL["now"]))


async def claim_keys(connection: Connection, new: Sequence[TaskState], ttl_s: int) -> KeyHolders:
    """Claim the idempotency keys of new tasks for `ttl_s` seconds, where they are free.

    If several tasks have the same key, the first one gets it.
    """
    first: dict[tuple[str, str], dict[str, str]] = {}
    for state in new:
        row = {
            "tenant": state.tenant,
            "key": state.idempotency_key,
            "fingerprint": state.fingerprint,
            "task": state.task,
        }
        first.setdefault((state.tenant, state.idempotency_key), row)
    if not first:
        return KeyHolders({}, None)
    wanted = list(first.values())
    await connection.execute(_SQL["claim_keys"], wanted, float(ttl_s))
    found = await connection.fetch(_SQL["key_holders"], wanted)
    return KeyHolders({(row["tenant"], row["key"]): row["task"] for row in found}, _last_now(found))


async def lock(connection: Connection, tasks: Iterable[str], cache: StateCache | None = None) -> Locked:
    """Lock the tasks that exist until the end of the transaction.

    `cache`: states that need not be read if the locked row has the same version.
    """
    ids = sorted(set(tasks))
    known: dict[str, TaskState] = {}
    now: str | None = None
    if cache is not None and cache.has_any(ids):
        locked = await connection.fetch(_SQL["lock_versions"], ids)
        known = {row["id"]: state for row in locked if (state := cache.get(row)) is not None}
        ids, now = [row["id"] for row in locked if row["id"] not in known], _last_now(locked)
    if not ids:
        return Locked(known, now)
    read = await _read(connection, ids)
    return Locked(known | read.states, read.now or now)


async def _read(connection: Connection, ids: Sequence[str]) -> Locked:
    found = await connection.fetch(_SQL["lock_tasks"], ids)
    if not found:
        return Locked({}, None)
    steps: dict[str, dict[tuple[str, int], StepRow]] = {row["id"]: {} for row in found}
    for row in await connection.fetch(_SQL["steps_of"], list(steps)):
        steps[row["task"]][row["step"], row["round"]] = rows.step_of(row)
    await _load_early_outputs(connection, {row["id"]: row["tenant"] for row in found}, steps)
    return Locked({row["id"]: rows.state_of(row, steps[row["id"]]) for row in found}, _last_now(found))


def _last_now(found: Sequence[asyncpg.Record]) -> str | None:
    return as_text(found[-1]["now"]) if found else None


async def _load_early_outputs(
    connection: Connection, tenants: Mapping[str, str], steps: Mapping[str, dict[tuple[str, int], StepRow]]
) -> None:
    """Load the stored outputs of early results. A result whose output no longer exists is ignored."""
    for task, rows_of_task in steps.items():
        for key, row in list(rows_of_task.items()):
            wanted = [(tenants[task], one.output_sha256) for one in row.early_results if one.output_sha256 is not None]
            if not wanted:
                continue
            outputs = await load_outputs(connection, wanted)
            early = [
                one._replace(output=outputs.get((tenants[task], one.output_sha256))) if one.output_sha256 else one
                for one in row.early_results
            ]
            complete = tuple(one for one in early if one.output is not None or one.output_sha256 is None)
            if complete:
                rows_of_task[key] = row._replace(early_results=complete)
            else:
                del rows_of_task[key]


async def save(connection: Connection, new: Sequence[Decision], known: Sequence[Decision]) -> None:
    """Store decisions; those about one task in the order of its runs.

    `new`: about tasks that `lock` did not find.

    Raises ConflictError if another orchestrator has stored one of the new tasks at the same time; retry then.
    """
    if new:
        values = _tasks(new)
        inserted = await connection.fetch(_SQL["insert_tasks"], values)
        if len(inserted) != len(values):
            raise ConflictError("another orchestrator has just stored one of these tasks")
    if known:
        last = {decision.state.task: decision.state for decision in known}
        await connection.execute(_SQL["update_tasks"], [rows.changes(state) for state in last.values()])
    both = [*new, *known]
    await _put(connection, "put_runs", [rows.run_row(one.state) for one in both if one.plan_changed])
    await _put(connection, "put_steps", [rows.step_row(one.state, row) for one in both for row in one.steps.values()])
    await _put(
        connection, "insert_attempts", [rows.attempt_row(one.state, item) for one in both for item in one.attempts]
    )
    redriven = [one.state.task for one in both if one.new_run]
    if redriven:
        await connection.execute(_SQL["mark_redriven"], redriven)
    # A large answer has not travelled in the message for memory, which can no longer read it from the task's row.
    replaced = [rows.artifact_row(one.state, one.replaced) for one in both if one.replaced is not None]
    await _put(connection, "put_artifacts", replaced)
    await _put(connection, "insert_events", [rows.event_row(event) for one in both for event in one.events])


async def restore(connection: Connection, state: TaskState, first: TaskState) -> TaskState:
    """Store a task's message (`first`) that could not be parsed when it arrived."""
    restored = replace(
        state,
        submission=first.submission,
        source=first.source,
        idempotency_key=first.idempotency_key,
        fingerprint=first.fingerprint,
        redactions=first.redactions,
        priority=first.priority,
        received_at=first.received_at,
    )
    await connection.execute(_SQL["restore_task"], [rows.task_row(restored)])
    return restored


async def insert_cancel_requests(connection: Connection, rows_: Sequence[Mapping[str, str | None]]) -> None:
    """Store requests to cancel unknown tasks; each row has `task`, `tenant`, `detail` and `requested_at`."""
    if rows_:
        await connection.execute(_SQL["insert_cancel_requests"], rows_)


async def cancel_requests(connection: Connection, tasks: Sequence[str]) -> dict[tuple[str, str], str | None]:
    """Return details of cancel requests that arrived before these tasks, by (task, tenant)."""
    if not tasks:
        return {}
    found = await connection.fetch(_SQL["cancel_requests"], tasks)
    return {(row["task"], row["tenant"]): row["detail"] for row in found}


def _tasks(decisions: Sequence[Decision]) -> list[dict[str, object]]:
    """Return a row per task, that of its newest run."""
    return list({decision.state.task: rows.task_row(decision.state) for decision in decisions}.values())


async def _put(connection: Connection, query: str, values: list[dict[str, object]]) -> None:
    if values:
        await connection.execute(_SQL[query], values)
