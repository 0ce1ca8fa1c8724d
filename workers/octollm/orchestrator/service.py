"""The orchestrator: many messages in, one transaction, what follows out.

Nothing is sent from here: the caller publishes and acknowledges in one script after the commit. A failed transaction
is tried again message by message, so that one bad message costs only itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from octollm.contracts.ids import utc_now
from octollm.database.pool import Connection, Pool, transaction
from octollm.database.queries import queries
from octollm.errors import NotReadyError
from octollm.orchestrator import store
from octollm.orchestrator.decide import DeadlinePassed, Event, Met, Refused, decide
from octollm.orchestrator.intake import Ended, Submitted, understand
from octollm.orchestrator.messages import Answer, Incoming, Outgoing, Send, Unreadable
from octollm.orchestrator.state import Decision, TaskState
from octollm.orchestrator.status import status_of
from octollm.plans.recipes import RecipeBook

_SQL = queries("octollm.orchestrator", "store")
_log = structlog.get_logger(__name__)


class Orchestrator:
    """Works on `tasks` and `steps.done`. Holds no state of its own: run as many as you like."""

    def __init__(self, pool: Pool, book: RecipeBook, idempotency_ttl_s: int) -> None:
        self._pool = pool
        self._book = book
        self._ttl_s = idempotency_ttl_s

    async def handle(self, messages: Sequence[Incoming]) -> list[Answer | Exception]:
        """An answer per message, in order; an exception for a message that breaks its own transaction.

        Raises NotReadyError while Postgres is away or another orchestrator was quicker: nothing was written then.
        """
        try:
            return list(await self._transact(messages))
        except NotReadyError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, only its own message may pay for it
            if len(messages) == 1:
                _log.exception("a message breaks its transaction", message=messages[0].id)
                return [error]
            _log.warning("a transaction failed; its messages are tried one by one", messages=len(messages))
        return [(await self.handle([message]))[0] for message in messages]

    async def expire(self, most: int) -> list[Outgoing]:
        """End up to `most` tasks whose deadline has passed. Say with `told` when that is published."""
        now = utc_now()
        async with transaction(self._pool) as connection:
            found = await connection.fetch(_SQL["overdue"], most)
            known = await store.lock(connection, [row["id"] for row in found])
            decisions = [decide(state, DeadlinePassed(), now) for state in known.values()]
            changed = [decision for decision in decisions if decision.changed]
            await store.save(connection, [], changed, now)
            await connection.execute(_SQL["set_untold"], [decision.state.task for decision in changed], True)  # noqa: FBT003  SQL has no keywords
        for decision in changed:
            _log_end(decision.state)
        return [_outgoing(decision) for decision in changed]

    async def forget_keys(self, most: int) -> None:
        """Remove up to `most` idempotency keys that have expired; nobody is held to them any more."""
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["forget_expired_keys"], most)

    async def untold(self, most: int) -> list[Outgoing]:
        """The status of up to `most` tasks that ended by the clock and were perhaps never published as such."""
        async with transaction(self._pool) as connection:
            found = await connection.fetch(_SQL["untold"], most)
            known = await store.lock(connection, [row["id"] for row in found])
        return [_outgoing(Decision(state)) for state in known.values()]

    async def told(self, tasks: Sequence[str]) -> None:
        """Their status is published."""
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["set_untold"], list(tasks), None)

    async def _transact(self, messages: Sequence[Incoming]) -> list[Answer]:
        now = utc_now()
        understood = [understand(message, self._book) for message in messages]
        readable = [one for one in understood if not isinstance(one, Unreadable)]
        async with transaction(self._pool) as connection:
            known = await store.lock(connection, [_task(one) for one in readable])
            holders = await self._holders(connection, readable, known)
            stored = [one.stored for one in readable if isinstance(one, Ended) and one.stored is not None]
            outputs = await store.stored_outputs(connection, stored)
            work = _Work(known, holders, outputs, now)
            answers = [one if isinstance(one, Unreadable) else work.apply(one) for one in understood]
            await store.save(connection, work.changed(new=True), work.changed(new=False), now)
        for decision in (*work.changed(new=True), *work.changed(new=False)):
            _log_end(decision.state)
        return answers

    async def _holders(
        self, connection: Connection, readable: Sequence[Submitted | Ended], known: Mapping[str, TaskState]
    ) -> Mapping[tuple[str, str], str]:
        claims = [
            (one.first.tenant, one.first.idempotency_key, one.first.fingerprint, one.first.task)
            for one in readable
            if isinstance(one, Submitted) and one.first.task not in known
        ]
        return await store.key_holders(connection, claims, self._ttl_s)


class _Work:
    """One transaction's tasks as they become, event by event."""

    def __init__(
        self,
        known: Mapping[str, TaskState],
        holders: Mapping[tuple[str, str], str],
        outputs: Mapping[tuple[str, str], Mapping[str, Any]],
        now: str,
    ) -> None:
        self._states = dict(known)
        self._known = frozenset(known)
        self._holders = holders
        self._outputs = outputs
        self._now = now
        self._decisions: dict[str, Decision] = {}

    def apply(self, one: Submitted | Ended) -> Outgoing:
        """What follows from one message."""
        event: Event
        if isinstance(one, Ended):
            state = self._states.get(one.task)
            if state is None:
                # Redis knows a task that Postgres does not: a database that was restored to an older day.
                _log.warning("a step of an unknown task ended", task=one.task)
                return Outgoing()
            event = one.event(self._outputs)
        else:
            state = self._states.get(one.first.task)
            event = Met() if state is not None else self._first_event(one)
            state = state or one.first
        decision = decide(state, event, self._now)
        self._remember(decision)
        return _outgoing(decision)

    def changed(self, *, new: bool) -> list[Decision]:
        """What has to be stored, one decision per task."""
        return [one for task, one in sorted(self._decisions.items()) if (task not in self._known) == new]

    def _first_event(self, one: Submitted) -> Event:
        holder = self._holders.get((one.first.tenant, one.first.idempotency_key), one.first.task)
        if holder != one.first.task:
            return Refused("duplicate", f"duplicate of {holder}, which came with the same idempotency key")
        return one.event

    def _remember(self, decision: Decision) -> None:
        task = decision.state.task
        self._states[task] = decision.state
        earlier = self._decisions.get(task)
        if not decision.changed:
            return
        if earlier is None:
            self._decisions[task] = decision
            return
        earlier.state = decision.state
        earlier.steps |= decision.steps
        earlier.attempts += decision.attempts
        earlier.events += decision.events


def _outgoing(decision: Decision) -> Outgoing:
    state = decision.state
    return Outgoing(
        sends=tuple(Send(step, state.traceparent) for step in decision.sends),
        # A copy: a later event of the same task in this transaction adds to the decision's own list.
        events=tuple(decision.events),
        traceparent=state.traceparent,
        # Also when nothing changed: the first publication may have been lost.
        status=status_of(state),
    )


def _log_end(state: TaskState) -> None:
    if state.ended:
        _log.info(
            "a task ended",
            task=state.task,
            tenant=state.tenant,
            trace=state.traceparent[3:35],
            kind=state.kind,
            state=state.state,
            reason=state.reason,
        )


def _task(one: Submitted | Ended) -> str:
    return one.first.task if isinstance(one, Submitted) else one.task
