"""What the orchestrator reads and writes in Postgres, many tasks at a time. Decides nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import orjson

from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.errors import StoreUnavailableError
from octollm.orchestrator import rows
from octollm.orchestrator.state import Decision, StepRow, TaskState
from octollm.orchestrator.state_cache import HeldStates

_SQL = queries("octollm.orchestrator", "store")
Output = dict[str, object]


async def key_holders(
    connection: Connection, claims: Sequence[tuple[str, str, str, str]], ttl_s: int
) -> dict[tuple[str, str], str]:
    """Which task holds each idempotency key, after ours have been claimed where they were free.

    `claims`: (tenant, key, fingerprint, task). Of several for one key in one call the first gets it.
    """
    first: dict[tuple[str, str], dict[str, str]] = {}
    for tenant, key, fingerprint, task in claims:
        first.setdefault((tenant, key), {"tenant": tenant, "key": key, "fingerprint": fingerprint, "task": task})
    if not first:
        return {}
    wanted = list(first.values())
    await connection.execute(_SQL["claim_keys"], wanted, float(ttl_s))
    found = await connection.fetch(_SQL["key_holders"], wanted)
    return {(row["tenant"], row["key"]): row["task"] for row in found}


async def lock(connection: Connection, tasks: Iterable[str], held: HeldStates | None = None) -> dict[str, TaskState]:
    """The tasks that exist, locked until the end of the transaction, with their steps of the current run.

    `held`: where a task's state need not be read if its row says that it is the same.
    """
    ids = sorted(set(tasks))
    known: dict[str, TaskState] = {}
    if held is not None and held.any_of(ids):
        locked = await connection.fetch(_SQL["lock_versions"], ids)
        known = {row["id"]: state for row in locked if (state := held.of(row)) is not None}
        ids = [row["id"] for row in locked if row["id"] not in known]
    return known | await _read(connection, ids) if ids else known


async def _read(connection: Connection, ids: Sequence[str]) -> dict[str, TaskState]:
    found = await connection.fetch(_SQL["lock_tasks"], ids)
    if not found:
        return {}
    steps: dict[str, dict[tuple[str, int], StepRow]] = {row["id"]: {} for row in found}
    for row in await connection.fetch(_SQL["steps_of"], list(steps)):
        steps[row["task"]][row["step"], row["round"]] = rows.step_of(row)
    await _fetch_early(connection, {row["id"]: row["tenant"] for row in found}, steps)
    return {row["id"]: rows.state_of(row, steps[row["id"]]) for row in found}


async def _fetch_early(
    connection: Connection, tenants: Mapping[str, str], steps: Mapping[str, dict[tuple[str, int], StepRow]]
) -> None:
    """Fill in large outputs of ends that came early. An end whose output is gone has not come."""
    for task, mine in steps.items():
        for key, row in list(mine.items()):
            wanted = [(tenants[task], one.output_sha256) for one in row.early_results if one.output_sha256 is not None]
            if not wanted:
                continue
            outputs = await stored_outputs(connection, wanted)
            early = [
                one._replace(output=outputs.get((tenants[task], one.output_sha256))) if one.output_sha256 else one
                for one in row.early_results
            ]
            whole = tuple(one for one in early if one.output is not None or one.output_sha256 is None)
            if whole:
                mine[key] = row._replace(early_results=whole)
            else:
                del mine[key]


async def stored_outputs(connection: Connection, wanted: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], Output]:
    """Large outputs by (tenant, SHA-256)."""
    asked = [{"tenant": tenant, "sha256": sha256} for tenant, sha256 in set(wanted)]
    if not asked:
        return {}
    found = await connection.fetch(_SQL["stored_outputs"], asked)
    return {(row["tenant"], row["sha256"]): orjson.loads(row["body"]) for row in found}


async def keep_output(connection: Connection, tenant: str, sha256: str, raw: bytes) -> None:
    """Store a large output; the same one twice is one."""
    await connection.execute(_SQL["keep_output"], tenant, sha256, raw)


async def save(connection: Connection, new: Sequence[Decision], known: Sequence[Decision]) -> None:
    """Store decisions, `new` ones of tasks that `lock` did not find; of one task in the order of their runs.

    Raises StoreUnavailableError when another orchestrator has taken in one of the new tasks meanwhile: look again.
    """
    if new:
        values = _tasks(new)
        inserted = await connection.fetch(_SQL["insert_tasks"], values)
        if len(inserted) != len(values):
            raise StoreUnavailableError("another orchestrator has just taken in one of these tasks")
    if known:
        last = {decision.state.task: decision.state for decision in known}
        await connection.execute(_SQL["update_tasks"], [rows.changes(state) for state in last.values()])
    both = [*new, *known]
    await _put(connection, "put_runs", [rows.run_row(one.state) for one in both if one.planned])
    await _put(connection, "put_steps", [rows.step_row(one.state, row) for one in both for row in one.steps.values()])
    await _put(
        connection, "insert_attempts", [rows.attempt_row(one.state, item) for one in both for item in one.attempts]
    )
    opened = [one.state.task for one in both if one.opened]
    if opened:
        await connection.execute(_SQL["redriven_letters"], opened)
    await _put(connection, "insert_events", [rows.event_row(event) for one in both for event in one.events])


async def restore(connection: Connection, state: TaskState, first: TaskState) -> TaskState:
    """Give a task that could not be taken in what its message, understood at last, asks for: `first`."""
    whole = replace(
        state,
        submission=first.submission,
        source=first.source,
        idempotency_key=first.idempotency_key,
        fingerprint=first.fingerprint,
        redactions=first.redactions,
        priority=first.priority,
        received_at=first.received_at,
    )
    await connection.execute(_SQL["restore_task"], [rows.task_row(whole)])
    return whole


async def keep_requests(connection: Connection, requests: Sequence[Mapping[str, str | None]]) -> None:
    """Store requests to cancel tasks that are not known: `task`, `tenant`, `detail`, `requested_at`."""
    await connection.execute(_SQL["keep_requests"], requests)


async def requests(connection: Connection, tasks: Sequence[str]) -> dict[tuple[str, str], str | None]:
    """Why tasks shall be cancelled, by task and tenant who asked, of those requested before they were known."""
    found = await connection.fetch(_SQL["requests"], tasks)
    return {(row["task"], row["tenant"]): row["detail"] for row in found}


def _tasks(decisions: Sequence[Decision]) -> list[dict[str, object]]:
    """A row per task: that of its newest run."""
    return list({decision.state.task: rows.task_row(decision.state) for decision in decisions}.values())


async def _put(connection: Connection, query: str, values: list[dict[str, object]]) -> None:
    if values:
        await connection.execute(_SQL[query], values)
