"""Callbacks of real tasks, a sender on a real Postgres, and receivers that behave badly."""

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from octollm.callbacks.http import HttpSender
from octollm.callbacks.schedule import DELAYS_S
from octollm.callbacks.sender import CallbackSender, Limits
from octollm.callbacks.store import CallbackStore
from octollm.callbacks.target import Resolve, Resolver, TargetFinder
from octollm.contracts.ids import new_task_id
from octollm.database.pool import Pool
from octollm.orchestrator.callbacks import CallbackOutbox
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import RecipeBook
from octollm.supervision import Supervisor
from octollm.topology.callbacks import CallbackRules
from tests.helpers.orchestrators import cancel, message_builder, rows, submitted
from tests.helpers.scripted_server import Request
from tests.helpers.waiting import until

SECRET = "whsec_" + base64.b64encode(b"the secret of this test.").decode()
PLACE = "env:TEST_CALLBACK_SECRET"
OLD_SECRET = "whsec_" + base64.b64encode(b"the secret of last year.").decode()
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def rules(*urls: str, **network: Any) -> CallbackRules:
    """An endpoint per URL, named `e0`, `e1` and so on; the loopback network is allowed."""
    ports = sorted({int(url.split("/")[2].rpartition(":")[2]) for url in urls})
    endpoints = {
        f"e{number}": {"description": "d", "tenant": "default", "url": url, "secrets": [PLACE, "env:TEST_OLD_SECRET"]}
        for number, url in enumerate(urls)
    }
    return CallbackRules.model_validate(
        {
            "version": 1,
            "network": {
                "ports": ports or [443],
                "http_hosts": ["127.0.0.1", "receiver.example"],
                "private_networks": ["127.0.0.0/8"],
                **network,
            },
            "tenants": {"default": {"secrets": [PLACE]}},
            "endpoints": endpoints,
        }
    )


def orchestrator_with(pool: Pool, book: RecipeBook, known: CallbackRules, **options: Any) -> Orchestrator:
    outbox = CallbackOutbox(known.endpoints, **options)
    return Orchestrator(pool, book, message_builder(), 3600, callbacks=outbox)


async def ended(orchestrator: Orchestrator, **submission: Any) -> str:
    """A task that has been cancelled."""
    task = new_task_id("l0")
    await orchestrator.handle([submitted(task, **submission)])
    await orchestrator.handle([cancel(task, detail="no longer wanted")])
    return task


@asynccontextmanager
async def sending(
    pool: Pool,
    known: CallbackRules,
    *,
    delays_s: Sequence[float] = DELAYS_S,
    timeout_s: float = 15,
    limits: Limits = Limits(8, 8, 2),  # noqa: B008  frozen
    resolve: Resolve | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[CallbackSender]:
    """A sender that runs while the block does."""
    supervisor, http, resolver = Supervisor(), HttpSender(timeout_s, tls), Resolver(4)
    targets = TargetFinder(known.network, resolve or resolver)
    store = CallbackStore(pool, timeout_s + 45)
    made = CallbackSender(store, known, targets, http, limits, supervisor, timeout_s=timeout_s, delays_s=delays_s)
    loop = supervisor.spawn_loop("send callbacks", made.run())
    try:
        yield made
        assert supervisor.failure is None
    finally:
        await supervisor.end([loop])
        await made.drain(0)
        await http.close()
        resolver.close()
        await supervisor.stop()


async def stored(pool: Pool) -> list[dict[str, Any]]:
    """The rows of `callbacks`, oldest first."""
    return [dict(row) for row in await rows(pool, "SELECT * FROM callbacks ORDER BY id")]


async def in_state(pool: Pool, state: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until `count` callbacks are in a state and return the rows."""

    async def reached() -> list[dict[str, Any]] | None:
        found = [row for row in await stored(pool) if row["state"] == state]
        return found if len(found) >= count else None

    return await until(reached, f"{count} callbacks that are {state}")


async def attempted(pool: Pool, attempts: int = 1) -> dict[str, Any]:
    """Wait until the only callback has ended so many attempts and waits for the next; return its row."""

    async def reached() -> dict[str, Any] | None:
        (row,) = await stored(pool)
        return row if row["attempts"] == attempts and row["outcome"] is not None else None

    return await until(reached, f"attempt {attempts}")


async def make_due(pool: Pool) -> None:
    """Let the pause until the next attempt pass."""
    await rows(pool, "UPDATE callbacks SET next_attempt_at = now(), outcome = NULL WHERE state = 'pending' RETURNING 1")


def is_signed(request: Request, secret: str) -> bool:
    """Whether one of a request's signatures is by `secret`; written from the specification alone."""
    key = base64.b64decode(secret.split("_", 1)[1])
    content = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    wanted = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return wanted in request.headers["webhook-signature"].split(" ")


def message(request: Request) -> dict[str, Any]:
    """The body of a received callback."""
    found: dict[str, Any] = orjson.loads(request.body)
    return found


@asynccontextmanager
async def receiver(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that treats each connection as `serve` does; yields its URL."""
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
