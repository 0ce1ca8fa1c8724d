"""Finds steps whose message is nowhere any more, and sends them again: thus a flushed or restored Redis heals.

Postgres says what should be in flight, the bus says what is. Attempts rise before the message goes out, so that a
late result of the lost one is refused.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from octollm.contracts.ids import utc_now
from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries
from octollm.errors import StoreUnavailableError
from octollm.orchestrator import direct, store
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import MessageLost
from octollm.orchestrator.messages import Send, StatusUpdate
from octollm.orchestrator.state import Priority
from octollm.orchestrator.status import status_of

_SQL = queries("octollm.orchestrator", "store")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class InFlight:
    """A step that was sent long ago."""

    task: str
    run: int
    step: str
    round: int
    arm: str
    priority: Priority


class Exists(Protocol):
    """Whether a step's message is somewhere. `claim`: where it is not, nobody repeats it until it is sent again."""

    def __call__(self, step: InFlight, /, *, claim: bool) -> Awaitable[bool]: ...


Resend = Callable[[Send, StatusUpdate], Awaitable[None]]
"""Sends only when the message is still nowhere, in one atomic look and send; restores the status."""


async def sweep(
    pool: Pool, older_than_s: float, most: int, exists: Exists, resend: Resend, *, hand_on: bool = False
) -> int:
    """Look at up to `most` steps; how many were sent again. `hand_on`: with the stretches that follow them."""
    async with transaction(pool) as connection:
        found = await connection.fetch(_SQL["long_in_flight"], older_than_s, most)
    lost = 0
    seen = []
    for row in found:
        step = InFlight(row["task"], row["run"], row["step"], row["round"], row["arm"], row["priority"])
        try:
            there = await exists(step, claim=False)
            if not there:
                lost += await _again(pool, step, row["attempt"], exists, resend, hand_on=hand_on)
        except StoreUnavailableError:
            raise
        except Exception:  # noqa: BLE001  whatever it is, the other steps must be looked for
            _log.exception("a step cannot be looked for", task=step.task, step=step.step)
            there = True  # not again in the next look, which begins with the oldest
        if there:
            seen.append({"task": step.task, "step": step.step, "round": step.round})
    if seen:
        async with transaction(pool) as connection:
            await connection.execute(_SQL["look_later"], seen)
    return lost


async def _again(pool: Pool, step: InFlight, attempt: int, exists: Exists, resend: Resend, *, hand_on: bool) -> int:
    now = utc_now()
    async with transaction(pool) as connection:
        state = (await store.lock(connection, [step.task])).get(step.task)
        if state is None:
            return 0
        decision = decide(state, MessageLost(step.step, step.round, attempt), now)
        # Looked at again under the lock: an orchestrator may have just finished with it, or sent it after all.
        if not decision.sends or await exists(step, claim=True):
            return 0
        await store.save(connection, [], [decision])
    for request in decision.sends:
        message = direct.with_rest(decision.state, request) if hand_on else request
        await resend(Send(message, state.traceparent), status_of(decision.state))
    _log.warning("a step's message was lost and is sent again", task=step.task, step=step.step)
    return 1
