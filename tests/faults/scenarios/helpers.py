"""What several scenarios do: send tasks and wait for their ends, restart processes with other settings."""

import asyncio
import signal
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from octollm.errors import StartError
from tests.faults.instance import Instance
from tests.faults.ledger import lines
from tests.faults.load import Order
from tests.faults.scenarios import TIMEOUT_S, MissedError, Ring

_ENDED = """
SELECT id, idempotency_key FROM tasks
WHERE idempotency_key = ANY ($1::text[]) AND run >= $2 AND finished_at IS NOT NULL
  AND reason IS DISTINCT FROM 'duplicate'
"""
_RUNNING = "SELECT id FROM tasks WHERE idempotency_key = ANY ($1::text[]) AND state = 'running'"


def send(ring: Ring, orders: Sequence[Order]) -> None:
    """Send all of them in the background."""
    for order in orders:
        ring.load.send(order)


def first_calls(ring: Ring, numbers: Collection[int]) -> list[dict[str, Any]]:
    """Return what the effect arms have logged of the first steps of the orders with these numbers.

    Later steps work on sums, which may be the number of another order.
    """
    return [line for line in lines(ring.stage.effects) if line["step"] == "one" and line.get("n") in numbers]


async def until_ended(
    ring: Ring, orders: Sequence[Order], what: str = "the end of the tasks", *, run: int = 1
) -> dict[str, str]:
    """Wait until this run of every order's task has ended; return the tasks by their orders' keys.

    Raises StartError, so that the fault counts as missed, if they do not end.
    """
    keys = [order.key for order in orders]
    found: dict[str, str] = {}

    async def all_ended() -> bool:
        found.update({row["idempotency_key"]: row["id"] for row in await ring.stage.rows(_ENDED, keys, run)})
        return len(found) == len(keys)

    await ring.stage.until(all_ended, what, TIMEOUT_S)
    return found


async def end_within(ring: Ring, orders: Sequence[Order], timeout_s: float = TIMEOUT_S) -> bool:
    """Whether the tasks of all orders end within this time."""
    try:
        async with asyncio.timeout(timeout_s):
            await until_ended(ring, orders)
    except (StartError, TimeoutError):
        return False
    return True


async def cancel_all(ring: Ring, orders: Sequence[Order]) -> None:
    """Cancel the task of each order as soon as it runs."""
    cancelled: set[str] = set()
    url = ring.stage.of("reflex")[1].http
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:

        async def all_cancelled() -> bool:
            for row in await ring.stage.rows(_RUNNING, [order.key for order in orders]):
                if row["id"] not in cancelled:
                    answer = await client.delete(f"{url}/v1/tasks/{row['id']}")
                    if answer.status_code != 202:
                        raise MissedError(f"the reflex answered {answer.status_code}: {answer.text}")
                    cancelled.add(row["id"])
            return len(cancelled) == len(orders)

        await ring.stage.until(all_cancelled, "tasks to cancel", TIMEOUT_S)


async def restart(ring: Ring, one: Instance, environment: Mapping[str, str] | None = None) -> None:
    """SIGTERM, and wait until it is ready again; from then on with this environment, where one is given."""
    starts = one.starts
    if environment is not None:
        one.environment = dict(environment)
    one.kill(signal.SIGTERM)
    await ring.stage.again(one, starts)


@asynccontextmanager
async def redeployed(ring: Ring, changes: Sequence[tuple[Instance, Mapping[str, str]]]) -> AsyncIterator[None]:
    """Restart processes with these additional settings, and at the end once more without them."""
    before = [one.environment for one, _ in changes]
    try:
        await asyncio.gather(*(restart(ring, one, {**one.environment, **more}) for one, more in changes))
        yield
    finally:
        for one, _ in changes:
            one.wanted = True
        old = zip(changes, before, strict=True)
        await asyncio.gather(*(restart(ring, one, environment) for (one, _), environment in old))


@asynccontextmanager
async def alone(ring: Ring, one: Instance) -> AsyncIterator[None]:
    """Stop the other processes of this one's role, and start them again at the end."""
    others = [other for other in ring.stage.of(one.role) if other is not one]
    starts = [other.starts for other in others]
    for other in others:
        other.wanted = False
        other.kill(signal.SIGTERM)
    try:
        await ring.stage.until(lambda: not any(other.runs for other in others), f"{one.name} alone", TIMEOUT_S)
        yield
    finally:
        for other in others:
            other.wanted = True
        for other, before in zip(others, starts, strict=True):
            await ring.stage.again(other, before)
