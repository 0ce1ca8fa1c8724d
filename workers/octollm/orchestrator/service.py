"""The orchestrator: many messages in, one transaction, and the operations that follow out.

Nothing is published here: after the commit, the caller publishes and acknowledges in one script call. A transaction
that fails is repeated message by message, so that a bad message affects only itself.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from datetime import datetime

import asyncpg
import structlog

from octollm.contracts.ids import in_flight_field, later
from octollm.database.outputs import load_outputs
from octollm.database.pool import Connection, Pool, transaction
from octollm.database.queries import queries
from octollm.errors import StoreUnavailableError, TopologyError
from octollm.orchestrator import poison, store
from octollm.orchestrator.batch import Batch
from octollm.orchestrator.callbacks import CallbackOutbox
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import (
    CancelRequested,
    DeadlinePassed,
    Event,
    NotBeforeReached,
    RedriveRequested,
    Unprocessable,
)
from octollm.orchestrator.intake import InvalidMessage, TaskMessage, parse_message
from octollm.orchestrator.messages import MessageBuilder
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import Decision, StepEnded, TaskState
from octollm.orchestrator.state_cache import StateCache
from octollm.periodic import Alarm
from octollm.plans.recipes import RecipeBook
from octollm.protocol.handoff import Entry
from octollm.protocol.operations import Operation

_SQL = queries("octollm.orchestrator", "store")
_log = structlog.get_logger(__name__)
_CANCEL_REQUEST_DAYS = 7
"""How long a request to cancel an unknown task is kept: longer than any task waits to be stored."""
_HORIZON_S = 2
"""A deadline or start within this time sets an alarm; what is later is found by the jobs, which run every second."""
_RECHECK_S = 0.1
"""How soon it is checked again whether the steps of an earlier run have stopped."""
_LAST_DELIVERY = 2
"""A message that fails alone in this delivery, so that it has failed twice, ends its task."""
Executing = Callable[[str, Sequence[str]], Awaitable[int]]
"""Returns how many steps of a task, given by their in-flight fields, are being worked on."""
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
        callbacks: CallbackOutbox | None = None,
    ) -> None:
        """`arms`: those of the topology.

        `plans_by_model`: a model is configured, which the arm `planner` asks for the plan of a task without a recipe.
        `callbacks`: stores who is notified of a task's end; by default only those that submissions name.
        """
        self._pool = pool
        self._planning = Planning(book, frozenset(arms), plans_by_model)
        self._messages = messages
        self._idempotency_ttl_s = idempotency_ttl_s
        self._callbacks = callbacks or CallbackOutbox()
        self._cache = StateCache()
        self.deadlines = Alarm()
        """For the job that calls `expire`."""
        self.starts = Alarm()
        """For the job that calls `start_due`."""

    @property
    def planning(self) -> Planning:
        """The sources of plans in this process."""
        return self._planning

    async def handle(self, entries: Sequence[Entry]) -> list[Answer | Exception]:
        """Process entries in one transaction. Return what follows from each, in order.

        An exception stands for an entry that failed alone; if it fails again when it is delivered again, its task fails
        with the cause. Raises StoreUnavailableError, with nothing written, while
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
            if entries[0].delivery < _LAST_DELIVERY:
                return [error]
            try:
                outcomes = await self._transact(entries, _cause(error))
            except StoreUnavailableError:
                raise
            except Exception:  # noqa: BLE001  the dead letter ends the task, see `archive.py`
                return [error]
        return [self._answer(outcome) for outcome in outcomes]

    async def expire(self, limit: int) -> list[Decision]:
        """End up to `limit` tasks whose deadline has passed, and set the alarm for the next deadline.

        Call `mark_published` when the decisions are published.
        """
        async with transaction(self._pool) as connection:
            found = await connection.fetch(_SQL["deadlines"], limit, float(_HORIZON_S))
        due = _due(found, self.deadlines)
        return await self._apply({row["id"]: DeadlinePassed() for row in due})

    async def cancel_overlooked(self, limit: int) -> list[Decision]:
        """Cancel up to `limit` tasks with a request that was stored at the same time as the task.

        Call `mark_published` when the decisions are published.
        """
        async with transaction(self._pool) as connection:
            found = await connection.fetch(_SQL["overlooked_cancel_requests"], limit)
        return await self._apply({row["id"]: CancelRequested(row["tenant"], row["detail"]) for row in found})

    async def start_due(self, limit: int, executing: Executing) -> list[Decision]:
        """Start up to `limit` runs whose time has come, and set the alarm for the next start.

        A run waits while steps of the run before it are executed. Call `mark_published` when the decisions are
        published. After a crash before that, the reconciler sends the steps, which it knows from the database.
        """
        async with transaction(self._pool) as connection:
            found = await connection.fetch(_SQL["starts"], limit, float(_HORIZON_S))
        due = [row["id"] for row in _due(found, self.starts) if await self._is_free(row["id"], row["run"], executing)]
        changed = await self._apply({task: NotBeforeReached(self._planning) for task in due})
        for decision in changed:
            # Publishing is not guarded by a lease here: the reconciler may have sent the steps before.
            decision.repeats = True
        return changed

    async def unpublished(self, limit: int) -> list[Decision]:
        """Return up to `limit` tasks whose last change may not have been published, as decisions.

        A crash between commit and publication leaves such a task. A decision holds the task's state as it is now, and
        publishing it again is harmless. Waits for tasks that another orchestrator has locked. Call `mark_published`
        when the decisions are published. Raises StoreUnavailableError.
        """
        async with transaction(self._pool) as connection:
            found = await connection.fetch(_SQL["status_pending"], limit)
            known, _ = await store.lock(connection, [row["id"] for row in found])
        return [Decision(state, finished=True) for state in known.values()]

    async def fail(self, task: str, error: Exception) -> list[Decision]:
        """Fail a task that this process cannot handle because of `error`; nothing if it has ended meanwhile.

        Call `mark_published` when the decision is published.
        """
        async with transaction(self._pool) as connection:
            now = await store.clock(connection)
            row, events = await poison.fail_task(connection, task, None, _cause(error), now)
            changed = [] if row is None else [poison.decision_of(row, events)]
            await self._callbacks.store(connection, changed)
            await connection.execute(_SQL["set_status_pending"], [task], True)  # noqa: FBT003  SQL has no keywords
        _log_ends(changed)
        return changed

    async def mark_published(self, tasks: Sequence[str]) -> None:
        """Record that the status of these tasks is published."""
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["set_status_pending"], list(tasks), None)

    async def delete_expired_keys(self, limit: int) -> None:
        """Delete up to `limit` expired idempotency keys, and old cancel requests whose tasks never arrived."""
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["delete_expired_keys"], limit)
            await connection.execute(_SQL["delete_old_cancel_requests"], _CANCEL_REQUEST_DAYS)

    async def _apply(self, events: Mapping[str, Event]) -> list[Decision]:
        """Apply events that no message has brought. A task on which this fails is failed; the others go on."""
        if not events:
            return []
        try:
            changed = await self._decide(events)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  only the task that causes it may be affected
            if len(events) > 1:
                return [one for task, event in events.items() for one in await self._apply({task: event})]
            (task,) = events
            _log.exception("a task cannot be handled and fails", task=task)
            return await self.fail(task, error)
        _log_ends(changed)
        return changed

    async def _decide(self, events: Mapping[str, Event]) -> list[Decision]:
        """Apply events in one transaction, and mark the changed tasks as not published."""
        async with transaction(self._pool) as connection:
            known, now = await store.lock(connection, events)
            decisions = [] if now is None else [decide(state, events[task], now) for task, state in known.items()]
            changed = [decision for decision in decisions if decision.changed]
            await store.save(connection, [], changed)
            await self._callbacks.store(connection, changed)
            tasks = [decision.state.task for decision in changed]
            await connection.execute(_SQL["set_status_pending"], tasks, True)  # noqa: FBT003  SQL has no keywords
        return changed

    async def _is_free(self, task: str, run: int, executing: Executing) -> bool:
        """Whether no step of the run before this one is executed. Otherwise that is checked again soon."""
        if run == 1:
            return True
        async with transaction(self._pool) as connection:
            steps = await connection.fetch(_SQL["steps_of_run"], task, run - 1)
        fields = [in_flight_field(task, run - 1, row["step"], row["round"]) for row in steps]
        if not fields or not await executing(task, fields):
            return True
        self.starts.set_in(_RECHECK_S)
        return False

    async def _transact(
        self, entries: Sequence[Entry], failure: str | None = None
    ) -> list[Decision | InvalidMessage | None]:
        """Process entries in one transaction.

        `failure`: do not process them, and fail their tasks with this detail.
        """
        parsed = [parse_message(entry, self._planning) for entry in entries]
        if failure is not None:
            parsed = [_unprocessable(one, failure) for one in parsed]
        valid = [one for one in parsed if not isinstance(one, InvalidMessage)]
        async with transaction(self._pool) as connection:
            known, now = await store.lock(connection, [one.task for one in valid], self._cache)
            known |= await self._restore(connection, valid, known)
            new = [one.first_state for one in valid if one.first_state is not None and one.task not in known]
            keys = await store.claim_keys(connection, new, self._idempotency_ttl_s)
            now = now or keys.now or await store.clock(connection)
            batch = Batch(
                known,
                keys.tasks,
                await load_outputs(connection, [one.stored_output for one in valid if one.stored_output is not None]),
                await store.cancel_requests(connection, [state.task for state in new]),
                now,
            )
            outcomes = [one if isinstance(one, InvalidMessage) else batch.apply(one) for one in parsed]
            created, updated = batch.changed(new=True), batch.changed(new=False)
            await store.save(connection, created, updated)
            await self._callbacks.store(connection, [*created, *updated])
            await store.insert_cancel_requests(connection, batch.early_cancel_requests)
        changed = [*created, *updated]
        self._cache.put((decision.state for decision in changed), _received_bytes(entries, parsed))
        self._set_alarms(changed, now)
        _log_ends(changed)
        return outcomes

    def _set_alarms(self, changed: Sequence[Decision], now: str) -> None:
        """Let the jobs know of deadlines and starts that come before they would look for them."""
        horizon = later(now, _HORIZON_S)
        for state in (decision.state for decision in changed if not decision.state.ended):
            if state.deadline_at is not None and state.deadline_at < horizon:
                self.deadlines.set_in(_seconds(now, state.deadline_at))
            if state.state == "accepted" and state.starts_at is not None and state.starts_at < horizon:
                self.starts.set_in(_seconds(now, state.starts_at))

    async def _restore(
        self, connection: Connection, messages: Sequence[TaskMessage], known: Mapping[str, TaskState]
    ) -> dict[str, TaskState]:
        """Complete tasks from their dead letters that could not be parsed at first and are to run again."""
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


def _due(found: Sequence[asyncpg.Record], alarm: Alarm) -> list[asyncpg.Record]:
    """Return the rows that are due, and set the alarm for the next one."""
    ahead = [row["due_in"] for row in found if row["due_in"] > 0]
    if ahead:
        alarm.set_in(min(ahead))
    return [row for row in found if row["due_in"] <= 0]


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _cause(error: Exception) -> str:
    return f"the orchestrator failed on it: {type(error).__name__}: {error}".replace("\0", " ")[:4000]


def _unprocessable(message: TaskMessage | InvalidMessage, failure: str) -> TaskMessage | InvalidMessage:
    """Return the message with an event that fails its task.

    A request about a task is not part of it and stays.
    """
    if isinstance(message, TaskMessage) and (message.first_state is not None or isinstance(message.event, StepEnded)):
        return message._replace(event=Unprocessable(failure))
    return message


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
