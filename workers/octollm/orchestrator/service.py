"""The orchestrator: many messages in, one transaction, what follows out.

Nothing is sent from here: the caller publishes and acknowledges in one script after the commit. A failed transaction
is tried again message by message, so that one bad message costs only itself.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set

import asyncpg
import structlog

from octollm.contracts.ids import utc_now
from octollm.database.pool import Connection, Pool, transaction
from octollm.database.queries import queries
from octollm.errors import StoreUnavailableError
from octollm.orchestrator import store
from octollm.orchestrator.batch import Work, outgoing
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import CancelRequested, DeadlinePassed, Event, MomentCame
from octollm.orchestrator.intake import Ended, Redrive, Submitted, Understood, understand
from octollm.orchestrator.messages import Answer, Incoming, Outgoing, Unreadable
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Decision, TaskState
from octollm.orchestrator.state_cache import HeldStates
from octollm.plans.recipes import RecipeBook

_SQL = queries("octollm.orchestrator", "store")
_log = structlog.get_logger(__name__)
_REQUEST_DAYS = 7
"""How long a request to cancel an unknown task waits for it: longer than any task waits to be taken in."""


class Orchestrator:
    """Works on `tasks` and `steps.done`. What it holds can be lost at any moment: run as many as you like."""

    def __init__(
        self,
        pool: Pool,
        book: RecipeBook,
        idempotency_ttl_s: int,
        *,
        arms: Set[str] = frozenset(),
        plans_by_model: bool = False,
        hand_on: bool = False,
    ) -> None:
        """`arms`: those of the topology. `plans_by_model`: a model is configured, and the arm `planner` may ask it for
        the plan of what no recipe fits. `hand_on`: linear stretches go from arm to arm directly.
        """
        self._hand_on = hand_on
        self._pool = pool
        self._planning = Planning(book, frozenset(arms), plans_by_model)
        self._ttl_s = idempotency_ttl_s
        self._held = HeldStates()

    async def handle(self, messages: Sequence[Incoming]) -> list[Answer | Exception]:
        """An answer per message, in order; an exception for a message that breaks its own transaction.

        Raises StoreUnavailableError while Postgres is away or another orchestrator was quicker: nothing was written
        then.
        """
        try:
            return list(await self._transact(messages))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, only its own message may pay for it
            if len(messages) == 1:
                _log.exception("a message breaks its transaction", message=messages[0].id)
                return [error]
            _log.warning("a transaction failed; its messages are tried one by one", messages=len(messages))
        return [(await self.handle([message]))[0] for message in messages]

    async def expire(self, most: int) -> list[Outgoing]:
        """End up to `most` tasks whose deadline has passed, and as many whose cancellation was overlooked.

        Say with `told` when that is published.
        """
        now = utc_now()
        async with transaction(self._pool) as connection:
            events: dict[str, Event] = {
                row["id"]: DeadlinePassed() for row in await connection.fetch(_SQL["overdue"], most)
            }
            for row in await connection.fetch(_SQL["overlooked_requests"], most):
                events[row["id"]] = CancelRequested(row["tenant"], row["detail"])
            known = await store.lock(connection, events)
            decisions = [decide(state, events[task], now) for task, state in known.items()]
            changed = [decision for decision in decisions if decision.changed]
            await store.save(connection, [], changed)
            await connection.execute(_SQL["set_untold"], [decision.state.task for decision in changed], True)  # noqa: FBT003  SQL has no keywords
        for decision in changed:
            _log_end(decision.state)
        return [outgoing(decision, ended=True) for decision in changed]

    async def begin(self, most: int) -> list[Outgoing]:
        """Begin up to `most` tasks that were put off and whose moment has come. Say with `told` when that is published.

        What a crash keeps from being published is sent by the sweeper, which knows the steps from here.
        """
        now = utc_now()
        async with transaction(self._pool) as connection:
            due = [row["id"] for row in await connection.fetch(_SQL["due"], most)]
            known = await store.lock(connection, due)
            decisions = [decide(state, MomentCame(self._planning), now) for state in known.values()]
            changed = [decision for decision in decisions if decision.changed]
            await store.save(connection, [], changed)
            await connection.execute(_SQL["set_untold"], [decision.state.task for decision in changed], True)  # noqa: FBT003  SQL has no keywords
        for decision in changed:
            _log_end(decision.state)
            # No lease holds back who publishes this late: the sweeper may have sent it by then.
            decision.again = True
        return [outgoing(decision, ended=decision.state.ended, hand_on=self._hand_on) for decision in changed]

    async def forget_keys(self, most: int) -> None:
        """Remove up to `most` idempotency keys that have expired, and old requests to cancel tasks that never came."""
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["forget_expired_keys"], most)
            await connection.execute(_SQL["forget_requests"], _REQUEST_DAYS)

    async def status_pending(self, most: int) -> list[Outgoing]:
        """The status of up to `most` tasks that ended by the clock and were perhaps never published as such."""
        async with transaction(self._pool) as connection:
            found = await connection.fetch(_SQL["status_pending"], most)
            known = await store.lock(connection, [row["id"] for row in found])
        return [outgoing(Decision(state), ended=True) for state in known.values()]

    async def told(self, tasks: Sequence[str]) -> None:
        """Their status is published."""
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["set_untold"], list(tasks), None)

    async def _transact(self, messages: Sequence[Incoming]) -> list[Answer]:
        now = utc_now()
        understood = [understand(message, self._planning) for message in messages]
        readable = [one for one in understood if not isinstance(one, Unreadable)]
        async with transaction(self._pool) as connection:
            known = await store.lock(connection, [one.task for one in readable], self._held)
            known |= await self._restored(connection, readable, known)
            holders = await self._holders(connection, readable, known)
            stored = [one.stored for one in readable if isinstance(one, Ended) and one.stored is not None]
            outputs = await store.stored_outputs(connection, stored)
            requests = await self._requests(connection, readable, known)
            work = Work(known, holders, outputs, requests, now, hand_on=self._hand_on)
            answers = [one if isinstance(one, Unreadable) else work.apply(one) for one in understood]
            await store.save(connection, work.changed(new=True), work.changed(new=False))
            if work.unknown:
                await store.keep_requests(connection, work.unknown)
        changed = [*work.changed(new=True), *work.changed(new=False)]
        self._held.keep((decision.state for decision in changed), _sizes(messages, understood))
        for decision in changed:
            _log_end(decision.state)
        return answers

    async def _holders(
        self, connection: Connection, readable: Sequence[Understood], known: Mapping[str, TaskState]
    ) -> Mapping[tuple[str, str], str]:
        claims = [
            (one.first.tenant, one.first.idempotency_key, one.first.fingerprint, one.first.task)
            for one in readable
            if isinstance(one, Submitted) and one.first.task not in known
        ]
        return await store.key_holders(connection, claims, self._ttl_s)

    async def _restored(
        self, connection: Connection, readable: Sequence[Understood], known: Mapping[str, TaskState]
    ) -> dict[str, TaskState]:
        """Of the tasks that are to run again, those that could not be taken in, with what was asked for."""
        found: dict[str, TaskState] = {}
        for one in readable:
            state = known.get(one.task)
            if isinstance(one, Redrive) and state is not None and not state.submission:
                row = await connection.fetchrow(_SQL["original_of"], one.task, one.request.tenant)
                first = None if row is None else _first(one.task, row, self._planning)
                if first is not None:
                    found[one.task] = await store.restore(connection, state, first)
        return found

    async def _requests(
        self, connection: Connection, readable: Sequence[Understood], known: Mapping[str, TaskState]
    ) -> Mapping[tuple[str, str], str | None]:
        new = [one.task for one in readable if isinstance(one, Submitted) and one.task not in known]
        return await store.requests(connection, new) if new else {}


def _sizes(messages: Sequence[Incoming], understood: Sequence[Understood | Unreadable]) -> Counter[str]:
    """Bytes that came in for each task."""
    sizes: Counter[str] = Counter()
    for message, one in zip(messages, understood, strict=True):
        if not isinstance(one, Unreadable):
            sizes[one.task] += len(message.body)
    return sizes


def _first(task: str, row: asyncpg.Record, planning: Planning) -> TaskState | None:
    message = Incoming("task.submitted.v1", task, "", row["traceparent"], row["original"], "")
    understood = understand(message, planning)
    if isinstance(understood, Submitted) and understood.task == task:
        return understood.first
    _log.warning("a task's own message is still not understood; it cannot run again", task=task)
    return None


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
