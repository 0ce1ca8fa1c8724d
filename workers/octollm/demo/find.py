"""Sends the demo's tasks and finds what became of them.

It uses HTTP, or the ingest stream and Postgres.
"""

import asyncio
import os
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from octollm.cli.webhook_signing import sign
from octollm.client import Client
from octollm.contracts import TaskEvent
from octollm.demo.memory_tasks import EVENT, SOURCE
from octollm.demo.outcome import DemoTask, Outcome
from octollm.devstack.embedded.redis import find_cli
from octollm.errors import RefusedError, StartError
from octollm.observability.logging import without_passwords
from octollm.runtime.connect_retry import ADVICE, cause
from octollm.settings.files import webhooks_path
from octollm.settings.loader import load_settings
from octollm.topology.webhooks import load_webhooks

_RETRY_FOR_S = 60
_STREAM = "ingest:default"
WEBHOOK_SECRET = "GITHUB_WEBHOOK_SECRET"  # noqa: S105  a variable's name, as in webhooks.yaml


@dataclass(frozen=True)
class Stores:
    """The addresses at which a running stack accepts tasks and keeps their outcomes."""

    http_url: str
    redis_url: str
    postgres_dsn: str


async def require_postgres(dsn: str) -> None:
    """Raises StartError when it cannot be used: without it no outcome could be found."""
    await (await _connect(dsn)).close()


async def run_task(task: DemoTask, stores: Stores) -> tuple[Outcome, float]:
    """The outcome and the seconds until it was there."""
    began = time.monotonic()
    if task.source == "http":
        outcome = await _over_http(task, stores)
    elif task.source == "webhook":
        outcome = await _as_webhook(task, stores)
    else:
        outcome = await _over_the_stream(task, stores)
    return outcome, time.monotonic() - began


async def _over_http(task: DemoTask, stores: Stores) -> Outcome:
    def send_and_wait() -> str:
        with Client(stores.http_url, api_key="") as client:
            ident = client.submit_json(task.body).task
            if task.cancelled:
                next(
                    event for event in client.events(ident) if isinstance(event, TaskEvent) and event.arm == "executor"
                )
                client.cancel(ident, "the demo takes it back")
            client.wait(ident, _RETRY_FOR_S)
            return ident

    ident = await asyncio.to_thread(send_and_wait)
    connection = await _connect(stores.postgres_dsn)
    try:
        return await _stored_task(connection, ident)
    finally:
        await connection.close()


async def _as_webhook(task: DemoTask, stores: Stores) -> Outcome:
    """Signed as GitHub signs. Waits until memory has what came of it, so that the next one can find it."""

    def deliver() -> str:
        secret = secrets.token_hex(16) if task.tampered else os.environ[WEBHOOK_SECRET]
        now_s, delivery = int(time.time()), secrets.token_hex(16)
        source = load_webhooks(webhooks_path(load_settings()))[SOURCE]
        headers = sign(source, secret, task.body, event=EVENT, delivery=delivery, now_s=now_s)
        with Client(stores.http_url, api_key="") as client:
            ident = str(client.deliver(SOURCE, task.body, headers)["task"])
            client.wait(ident, _RETRY_FOR_S)
            return ident

    try:
        ident = await asyncio.to_thread(deliver)
    except RefusedError as error:
        return Outcome("refused", error.code, str(error), 0, None, "", "")
    connection = await _connect(stores.postgres_dsn)
    try:
        deadline = time.monotonic() + _RETRY_FOR_S
        while not await connection.fetchval("SELECT indexed_at IS NOT NULL FROM tasks WHERE id = $1", ident):
            if time.monotonic() > deadline:
                raise StartError(f"memory has nothing of task {ident} within {_RETRY_FOR_S} s")
            await asyncio.sleep(0.02)
        return await _stored_task(connection, ident)
    finally:
        await connection.close()


async def _over_the_stream(task: DemoTask, stores: Stores) -> Outcome:
    key = f"demo-{task.name}-{secrets.token_hex(4)}"  # a stack that lives on has seen this task before
    entry = await asyncio.to_thread(_xadd, stores.redis_url, task.body, key)
    connection = await _connect(stores.postgres_dsn)
    try:
        deadline = time.monotonic() + _RETRY_FOR_S
        while time.monotonic() < deadline:
            if task.kind == "-":
                dead_letter = await connection.fetchrow(
                    "SELECT id, reason, message FROM dead_letters WHERE body->>'entry' = $1", entry
                )
                if dead_letter is not None:
                    where = f"dead_letters {dead_letter['id']}"
                    return Outcome("dead letter", dead_letter["reason"], dead_letter["message"], 0, None, where, "")
            else:
                # A task that was refused leaves its key free.
                ended = await connection.fetchval(
                    "SELECT id FROM tasks WHERE idempotency_key IN ($1, 'refused ' || $1) AND result IS NOT NULL", key
                )
                if ended:
                    return await _stored_task(connection, ended)
            await asyncio.sleep(0.02)
    finally:
        await connection.close()
    raise StartError(f"nothing came of entry {entry} on {_STREAM} within {_RETRY_FOR_S} s")


async def _connect(dsn: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(dsn, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        address = without_passwords(dsn)
        raise StartError(f"Postgres at {address} cannot be used ({cause(error)}); {ADVICE['Postgres']}") from error


async def _stored_task(connection: asyncpg.Connection, ident: str) -> Outcome:
    row = await connection.fetchrow("SELECT * FROM tasks WHERE id = $1", ident)
    if row is None or row["result"] is None:
        raise StartError(f"Postgres has no result for the task {ident}")
    result: dict[str, Any] = orjson.loads(row["result"])
    kept = await connection.fetch(
        "SELECT to_jsonb(steps)::text FROM steps WHERE task = $1 UNION ALL "
        "SELECT to_jsonb(events)::text FROM events WHERE task = $1",
        ident,
    )
    stored = "\n".join([str(dict(row)), *(str(one[0]) for one in kept)])
    return Outcome(
        state=row["state"],
        reason=row["reason"],
        detail=row["detail"],
        steps=len(result["steps"]),
        answer=result["answer"],
        where=f"tasks {ident}",
        stored=stored,
    )


def _xadd(url: str, body: bytes, key: str) -> str:
    """As any producer would: redis-cli, and nothing of ours. The entry's id."""
    cli: Path = find_cli()
    command = [str(cli), "-u", url, "XADD", _STREAM, "*", "idempotency_key", key, "body", body.decode()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603  the server's own client
    if done.returncode != 0 or "-" not in done.stdout:
        raise StartError(f"redis-cli could not add to {_STREAM}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip().strip('"')
