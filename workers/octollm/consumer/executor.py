"""Runs the handler of each delivery and decides how it ends.

The end is a completion, a return of the entry, or nothing.

The handler says what an entry leads to; the consumer's pool says what may begin; this is all between the two.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter

import structlog

from octollm.consumer.circuit_breaker import CircuitBreaker, Source
from octollm.consumer.committer import Committer
from octollm.consumer.context import set_current
from octollm.consumer.delivery import HANDLED, Delivery, Event, State
from octollm.consumer.pool import DeliveryPool
from octollm.consumer.releaser import Releaser
from octollm.consumer.task_pool import TaskPool
from octollm.errors import StoreUnavailableError
from octollm.faults import may_be_process_fault
from octollm.protocol.backoff import Backoff
from octollm.protocol.handoff import Completion, Entry, LeaseStatus
from octollm.protocol.operations import DeliveryKey
from octollm.protocol.outcomes import HANDLER_SECONDS, HandlerResult, Outcome
from octollm.supervision import Supervisor

Handler = Callable[[Entry], Awaitable[HandlerResult]]
"""Works on one entry. Raises StoreUnavailableError to be called again; any other exception is its own fault."""
_HANDLER_WORKED = frozenset({Outcome.DONE, Outcome.FAILED})
_log = structlog.get_logger(__name__)


class Executor:
    """The handler of one consumer, and the tasks that run it."""

    def __init__(
        self,
        topic: str,
        handler: Handler,
        pool: DeliveryPool,
        committer: Committer,
        releaser: Releaser,
        breaker: CircuitBreaker,
        supervisor: Supervisor,
    ) -> None:
        self._topic = topic
        self._handler = handler
        self._pool = pool
        self._committer = committer
        self._releaser = releaser
        self._breaker = breaker
        self._tasks: TaskPool[Delivery] = TaskPool(self._run, f"work {topic}", supervisor)
        self._seconds = HANDLER_SECONDS.of(topic)

    def submit(self, deliveries: Iterable[Delivery]) -> None:
        """Run the handler on deliveries in state LEASED, as soon as the event loop runs."""
        self._tasks.put(deliveries)

    async def release_all(self, timeout_s: float) -> set[DeliveryKey]:
        """Give back every delivery without a result: one that has begun when its handler ends.

        Waits up to `timeout_s` for the handlers, which are cancelled. A handler that ignores that keeps its lease
        until it runs out: given back, the step would run twice at the same time. Returns the deliveries of such ones.
        """
        self._tasks.drop_queued()
        self._releaser.add(self._pool.in_states({State.LEASED}), Outcome.RELEASED)
        self._pool.stop_all()
        try:
            await asyncio.wait_for(self._pool.until_no_handler_runs(), timeout_s)
        except TimeoutError:
            running = self._pool.in_states(HANDLED)
            entries = [delivery.entry.id for delivery in running]
            _log.error("handlers ignore their cancellation; their leases run out", topic=self._topic, entries=entries)
            self._pool.abandon(running)
            return {delivery.key for delivery in running}
        return set()

    async def close(self, timeout_s: float) -> None:
        """Cancel all running handlers and wait up to `timeout_s`; no other delivery begins."""
        await self._tasks.close(timeout_s)

    async def _run(self, delivery: Delivery, task: asyncio.Task[None]) -> None:
        """Work on a delivery until its completion is with the committer, or it has ended."""
        delivery.task = task
        delivery.advance(Event.START)
        set_current(delivery)
        began = perf_counter()
        try:
            result = await self._handle(delivery)
        except asyncio.CancelledError:
            self._breaker.record_inconclusive()
            if not delivery.take_back_cancellation():  # `close` cancelled it: this task ends
                self._pool.abandon([delivery])
                raise
            self._stopped(delivery)
        else:
            if delivery.state is State.STOPPING:
                # The handler swallowed the cancellation: the next delivery must not be cancelled for it.
                delivery.take_back_cancellation()
                if self._failed_by_release(delivery, result):
                    self._stopped(delivery)
                    return
            if self._is_to_be_returned(delivery.entry, result):
                self._releaser.add([delivery], Outcome.RETURNED)
            elif isinstance(result, Exception):
                self._pool.abandon([delivery])
            else:
                self._commit(delivery, result)
        finally:
            self._seconds.observe(perf_counter() - began)

    @staticmethod
    def _failed_by_release(delivery: Delivery, result: HandlerResult | Exception) -> bool:
        """Whether the handler made a failure of the cancellation at the end of a drain.

        A deploy fails no step.
        """
        failed = isinstance(result, Exception) or result.outcome is not Outcome.DONE
        return delivery.stop_reason is LeaseStatus.RELEASED and failed

    def _stopped(self, delivery: Delivery) -> None:
        if delivery.stop_reason is LeaseStatus.RELEASED:
            self._releaser.add([delivery], Outcome.RELEASED)
            return
        if delivery.stop_reason is not LeaseStatus.RUN_ENDED:
            self._pool.abandon([delivery])
            return
        delivery.intended = Outcome.RUN_ENDED
        delivery.advance(Event.COMMIT)
        self._committer.add(Completion(delivery.lease, (), only_if_ended=True), delivery)

    def _commit(self, delivery: Delivery, result: HandlerResult) -> None:
        lease = delivery.lease
        if result.in_flight != lease.in_flight:
            lease = lease._replace(in_flight=result.in_flight)
        delivery.intended = result.outcome
        delivery.advance(Event.COMMIT)
        self._committer.add(Completion(lease, tuple(result.operations)), delivery)

    def _is_to_be_returned(self, entry: Entry, result: HandlerResult | Exception) -> bool:
        """Record the handler's end with the circuit breaker; whether it is open and the entry goes back."""
        if isinstance(result, Exception):
            if may_be_process_fault(result):
                return self._breaker.record_failure(_source(entry))
        elif result.handler_fault:
            return self._breaker.record_failure(_source(entry))
        elif result.outcome in _HANDLER_WORKED:
            self._breaker.record_success(_source(entry))
            return False
        self._breaker.record_inconclusive()
        return False

    async def _handle(self, delivery: Delivery) -> HandlerResult | Exception:
        """Return the handler's result, once its stores are available, or the unexpected exception.

        Raises CancelledError also where the handler answered its cancellation with another error.
        """
        backoff: Backoff | None = None
        result: HandlerResult | None = None
        while True:
            try:
                if result is None:
                    result = await self._handler(delivery.entry)
                if result.before_commit is not None:
                    await result.before_commit()
            except StoreUnavailableError as error:
                if delivery.state is State.STOPPING:
                    raise asyncio.CancelledError from error
                # An unavailable store is no fault of the message, and costs it neither an attempt nor a delivery.
                _log.warning("waiting for a store", error=error.message)
                delivery.advance(Event.WAIT_FOR_STORE)
                self._pool.extend_lease(delivery)
                backoff = backoff or Backoff()
                await backoff.wait()
                delivery.advance(Event.RESUME)
                self._pool.limit_lease(delivery)
            except Exception as error:  # whatever it is, it must end in an outcome
                if delivery.state is State.STOPPING:
                    raise asyncio.CancelledError from error
                _log.exception("the handler broke; the message stays pending", entry=delivery.entry.id)
                return error
            else:
                return result


def _source(entry: Entry) -> Source:
    parts = entry.fields.get(b"id", b"").split(b".")
    is_step = len(parts) == 5  # task, run, step, round, attempt
    step = parts[2] if is_step else entry.fields.get(b"type", b"")
    return Source(parts[0] or entry.id.encode(), entry.fields.get(b"tenant", b""), step)
