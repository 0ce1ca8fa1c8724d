"""The orchestrator: many messages in, one transaction, and the operations that follow out.

Nothing is published here: after the commit, the caller publishes and acknowledges in one script call. A transaction
that fails is repeated message by message, so that a bad message affects only itself.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set

import asyncpg
import structlog

from octollm.contracts.ids import utc_now
from octollm.database.outputs import load_outputs
from octollm.database.pool import Connection, Pool, transaction
from octollm.database.queries import queries
from octollm.errors import StoreUnavailableError, TopologyError
from octollm.orchestrator import store
from octollm.orchestrator.batch import Batch
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import CancelRequested, DeadlinePassed, Event, NotBeforeReached, RedriveRequested
from octollm.orchestrator.intake import InvalidMessage, TaskMessage, parse_message
from octollm.orchestrator.messages import MessageBuilder
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Decision, TaskState
from octollm.orchestrator.state_cache import StateCache
from octollm.plans.recipes import RecipeBook
from octollm.protocol.handoff import Entry
from octollm.protocol.operations import Operation

_SQL = queries("octollm.orchestrator", "store")
_log = structlog.get_logger(__name__)
_CANCEL_REQUEST_DAYS = 7
"""How long a request to cancel an unknown task is kept: longer than any task waits to be stored."""
Answer = tuple[Operation, ...] | InvalidMessage
"""What follows from an entry: operations to publish, or a dead letter."""


class Orchestrator:
    """Processes `tasks` and `steps.done`. It keeps no state that must not be lost: any number may run."""

    def __init__(
        self,
        pool: Pool,
        book: RecipeBook,
        messages: MessageBuilder,
        idempotency_ttl_s: int,
        *,
        arms: Set[str] = frozenset(),
        plans_by_model: bool = False,
    ) -> None:
        """`arms`: those of the topology. `plans_by_model`: a model is configured, which the arm `planner` may ask for
        the plan of a task that has no recipe.
        """
        self._pool = pool
        self._planning = Planning(book, frozenset(arms), plans_by_model)
        self._messages = messages
        self._idempotency_ttl_s = idempotency_ttl_s
        self._cache = StateCache()

    async def handle(self, entries: Sequence[Entry]) -> list[Answer | Exception]:
        """Process entries in one transaction. Return what follows from each, in order.

        An exception stands for an entry that failed alone. Raises StoreUnavailableError, with nothing written, while
        Postgres is unavailable or if another orchestrator stored one of the tasks at the same time.
        """
        try:
            outcomes = await self._transact(entries)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  only the message that causes it may be affected
            if len(entries) > 1:
                _log.warning("a transaction failed; its messages are processed one by one", messages=len(entries))
                return [(await self.handle([entry]))[0] for entry in entries]
            _log.exception("a message failed", stream=entries[0].stream, entry=entries[0].id)
            return [error]
        return [self._answer(outcome) for outcome in outcomes]

    async def expire(self, limit: int) -> list[Decision]:
        """End up to `limit` tasks whose deadline has passed, and as many with a cancel request that was overlooked.

        Call `mark_published` when the decisions are published.
        """
        async with transaction(self._pool) as connection:
            events: dict[str, Event] = {
                row["id"]: DeadlinePassed() for row in await connection.fetch(_SQL["overdue"], limit)
            }
            for row in await connection.fetch(_SQL["overlooked_cancel_requests"], limit):
                events[row["id"]] = CancelRequested(row["tenant"], row["detail"])
            changed = await self._decide(connection, events)
        _log_ends(changed)
        return changed

    async def start_due(self, limit: int) -> list[Decision]:
        """Start up to `limit` scheduled tasks whose time has come. Call `mark_published` when that is published.

        If it is not published because of a crash, the reconciler sends the steps, which it knows from the database.
        """
        async with transaction(self._pool) as connection:
            due = await connection.fetch(_SQL["due"], limit)
            changed = await self._decide(connection, {row["id"]: NotBeforeReached(self._planning) for row in due})
        _log_ends(changed)
        for decision in changed:
            # Publishing is not guarded by a lease here: the reconciler may have sent the steps before.
            decision.repeats = True
        return changed

    async def unpublished(self, limit: int) -> list[Decision]:
        """Return the state of up to `limit` tasks that changed without a message and may not have been published."""
        async with transaction(self._pool) as connection:
            found = await connection.fetch(_SQL["status_pending"], limit)
            known = await store.lock(connection, [row["id"] for row in found])
        return [Decision(state, finished=True) for state in known.values()]

    async def mark_published(self, tasks: Sequence[str]) -> None:
        """Record that the status of these tasks is published."""
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["set_status_pending"], list(tasks), None)

    async def delete_expired_keys(self, limit: int) -> None:
        """Delete up to `limit` expired idempotency keys, and old cancel requests whose tasks never arrived."""
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["delete_expired_keys"], limit)
            await connection.execute(_SQL["delete_old_cancel_requests"], _CANCEL_REQUEST_DAYS)

    async def _decide(self, connection: Connection, events: Mapping[str, Event]) -> list[Decision]:
        """Apply events that no message has brought, and mark the changed tasks as not published."""
        now = utc_now()
        known = await store.lock(connection, events)
        decisions = [decide(state, events[task], now) for task, state in known.items()]
        changed = [decision for decision in decisions if decision.changed]
        await store.save(connection, [], changed)
        tasks = [decision.state.task for decision in changed]
        await connection.execute(_SQL["set_status_pending"], tasks, True)  # noqa: FBT003  SQL has no keywords
        return changed

    async def _transact(self, entries: Sequence[Entry]) -> list[Decision | InvalidMessage | None]:
        parsed = [parse_message(entry, self._planning) for entry in entries]
        valid = [one for one in parsed if not isinstance(one, InvalidMessage)]
        async with transaction(self._pool) as connection:
            known = await store.lock(connection, [one.task for one in valid], self._cache)
            known |= await self._restore(connection, valid, known)
            new = [one.first_state for one in valid if one.first_state is not None and one.task not in known]
            batch = Batch(
                known,
                await store.claim_keys(connection, new, self._idempotency_ttl_s),
                await load_outputs(connection, [one.stored_output for one in valid if one.stored_output is not None]),
                await store.cancel_requests(connection, [state.task for state in new]),
                utc_now(),
            )
            outcomes = [one if isinstance(one, InvalidMessage) else batch.apply(one) for one in parsed]
            created, updated = batch.changed(new=True), batch.changed(new=False)
            await store.save(connection, created, updated)
            await store.insert_cancel_requests(connection, batch.early_cancel_requests)
        changed = [*created, *updated]
        self._cache.put((decision.state for decision in changed), _received_bytes(entries, parsed))
        _log_ends(changed)
        return outcomes

    async def _restore(
        self, connection: Connection, messages: Sequence[TaskMessage], known: Mapping[str, TaskState]
    ) -> dict[str, TaskState]:
        """Complete tasks that could not be parsed when they arrived and are to run again, from their dead letter."""
        restored: dict[str, TaskState] = {}
        for one in messages:
            state = known.get(one.task)
            if isinstance(one.event, RedriveRequested) and state is not None and not state.submission:
                row = await connection.fetchrow(_SQL["original_of"], one.task, one.event.tenant)
                first_state = None if row is None else self._first_state(one.task, row)
                if first_state is not None:
                    restored[one.task] = await store.restore(connection, state, first_state)
        return restored

    def _first_state(self, task: str, row: asyncpg.Record) -> TaskState | None:
        traceparent = row["traceparent"].encode()
        fields = {b"type": b"task.submitted.v1", b"traceparent": traceparent, b"body": row["original"]}
        parsed = parse_message(Entry("", "", 0, fields), self._planning)
        if isinstance(parsed, TaskMessage) and parsed.task == task:
            return parsed.first_state
        _log.warning("a task cannot run again: its message still cannot be parsed", task=task)
        return None

    def _answer(self, outcome: Decision | InvalidMessage | None) -> Answer | Exception:
        if outcome is None or isinstance(outcome, InvalidMessage):
            return () if outcome is None else outcome
        try:
            return self._messages.operations(outcome)
        except TopologyError as error:
            return error


def _received_bytes(entries: Sequence[Entry], parsed: Sequence[TaskMessage | InvalidMessage]) -> Counter[str]:
    """Return the size of the messages of each task."""
    sizes: Counter[str] = Counter()
    for entry, one in zip(entries, parsed, strict=True):
        if not isinstance(one, InvalidMessage):
            sizes[one.task] += len(entry.fields.get(b"body", b""))
    return sizes


def _log_ends(decisions: Sequence[Decision]) -> None:
    for state in (decision.state for decision in decisions):
        if state.ended:
            _log.info(
                "task ended",
                task=state.task,
                tenant=state.tenant,
                trace=state.traceparent[3:35],
                kind=state.kind,
                state=state.state,
                reason=state.reason,
            )
