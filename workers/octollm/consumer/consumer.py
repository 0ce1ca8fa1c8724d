"""One consumer of one topic in one lane: reads, runs, finishes, takes over what others left, and leaves in order.

The handler decides what an entry leads to; everything about leases, deliveries and acknowledgement is here.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic, perf_counter

import redis.asyncio
import structlog
from faststream.redis import RedisBroker

from octollm.consumer.circuit_breaker import NEVER, CircuitBreaker, CircuitBreakerRule
from octollm.consumer.committer import Committer
from octollm.consumer.context import CURRENT
from octollm.consumer.delivery import Delivery, Place
from octollm.consumer.leases import Leases
from octollm.consumer.reader import create_groups, subscribe
from octollm.consumer.reclaimer import Reclaimer
from octollm.consumer.slots import Slots
from octollm.consumer.task_pool import TaskPool
from octollm.contracts.ids import in_flight_field_in
from octollm.errors import StoreUnavailableError
from octollm.protocol.backoff import TRANSIENT_REDIS_ERRORS, Backoff
from octollm.protocol.fairness import Fairness
from octollm.protocol.fields import clean
from octollm.protocol.handoff import Completion, Entry, Handoff, LeaseStatus
from octollm.protocol.operations import Key, Lease
from octollm.protocol.outcomes import MESSAGES, RUNNING, SECONDS, HandlerResult, Outcome
from octollm.supervision import Supervisor
from octollm.topology import ARM, LaneKeys, Topic

_log = structlog.get_logger(__name__)
Handler = Callable[[Entry], Awaitable[HandlerResult]]
_WELL = frozenset({Outcome.DONE, Outcome.FAILED})
"""A handler did what it is there for."""
_TRUTH: dict[LeaseStatus | None, Outcome] = {
    LeaseStatus.CANCELLED: Outcome.CANCELLED,
    LeaseStatus.STALE: Outcome.STALE,
    LeaseStatus.GONE: Outcome.GONE,
    LeaseStatus.VALID: Outcome.ABANDONED,
    None: Outcome.ABANDONED,
}
"""How a delivery ended where it did not end as it was meant to."""
_GRACE_S = 30.0
"""How much longer than the handler's own limit a lease is kept, for the completion."""


class Consumer:
    """Of one topic in one lane. `start`, later `stop`."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        leases: Leases,
        topic: Topic,
        lane: str,
        consumer: str,
        handler: Handler,
        concurrency: int,
        supervisor: Supervisor,
        fairness: Fairness | None = None,
        fuse: CircuitBreakerRule = NEVER,
    ) -> None:
        self._client = client
        self._supervisor = supervisor
        self._leases = leases
        self._topic = topic
        self.name = consumer
        self._handler = handler
        self._keys = LaneKeys(lane)
        self._streams = self._keys.streams(topic)
        self.handoff = Handoff(client, lane, topic.group, consumer, fairness)
        self._completions: Committer[Delivery] = Committer(self.handoff, topic.name, supervisor, self._answered)
        self._hands: TaskPool[Delivery] = TaskPool(self._work, f"work {topic.name}", supervisor)
        self._slots = Slots(concurrency)
        self._running: dict[Key, Delivery] = {}
        """Everything that was begun and has not ended."""
        self._alone: dict[asyncio.Task[None], list[Delivery]] = {}
        """What was taken over, with the task that waits to be alone with it and then for its end."""
        self._drained = asyncio.Event()
        self._fuse = CircuitBreaker(fuse, topic.name)
        self._takeover = Reclaimer(
            client, self.handoff, topic, self._streams, self._room, self._together, self._taken_over
        )
        self._claims: asyncio.Task[None] | None = None
        self._stopping = False
        self._steps = topic.name.startswith(ARM)
        # Without a limit of its own (the orchestrator's topics) a handler waits for Postgres as long as it takes.
        self._limit_s = float("inf") if topic.timeout_s is None else topic.timeout_s + _GRACE_S
        # By topic and outcome once, not with every message.
        self._running_gauge, self._seconds = RUNNING.labels(topic.name), SECONDS.of(topic.name)
        self._messages = {outcome: MESSAGES.labels(topic.name, outcome) for outcome in Outcome}

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._topic.name

    @property
    def fused(self) -> bool:
        """Whether its fuse keeps it from working (any thread)."""
        return self._fuse.out

    async def start(self, broker: RedisBroker) -> None:
        """Create the groups and register the reader with `broker`, which the caller starts afterwards."""
        await create_groups(self._client, self._streams, self._topic.group)
        self._completions.start()
        self._claims = self._supervisor.spawn_loop(f"claim {self._topic.name}", self._takeover.run())
        subscribe(
            broker,
            self._supervisor,
            self._topic.name,
            self._streams,
            self._topic.group,
            self.name,
            self._room,
            self._take,
        )

    async def stop(self, drain_s: float) -> None:
        """After the broker has stopped reading: give back what has not begun, wait for the rest, leave the group."""
        self._stopping = True
        if self._claims is not None:
            await self._supervisor.end([self._claims])
        await self._supervisor.end([task for task, taken in self._alone.items() if taken[0].place is Place.QUEUE])
        try:
            await asyncio.wait_for(self._release_unstarted(), timeout=5)
        except (*TRANSIENT_REDIS_ERRORS, StoreUnavailableError) as error:
            _log.warning("unstarted entries stay pending", topic=self._topic.name, error=str(error))
        if self._running:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), timeout=drain_s)
        await self._hands.close()
        await self._supervisor.end(list(self._alone))
        await self._completions.stop()
        self._over([(delivery, Outcome.ABANDONED) for delivery in self._running.values()])
        self._fuse.retire()
        try:
            await asyncio.wait_for(self.handoff.leave_group(self._streams), timeout=5)
        except TRANSIENT_REDIS_ERRORS as error:
            _log.warning("could not leave the consumer group", topic=self._topic.name, error=str(error))

    async def _room(self) -> int:
        return await self._fuse.room(await self._slots.room())

    async def _take(self, entries: Sequence[Entry]) -> None:
        """Start what there is room for; give back the rest."""
        room = 0 if self._stopping else max(0, self._slots.free())
        if self._fuse.out:
            room = int(room > 0 and self._fuse.begin())
        if mine := entries[:room]:
            self._begin(mine)
        if surplus := entries[room:]:
            await self._release(surplus)

    def _begin(self, entries: Sequence[Entry]) -> None:
        self._slots.take(len(entries))
        self._running_gauge.inc(len(entries))
        self._hands.put(self._keep(entries, Place.SLOT, monotonic() + self._limit_s))

    def _keep(self, entries: Sequence[Entry], place: Place, until: float) -> list[Delivery]:
        """More that run, and their leases, renewed no longer than `until` (monotonic clock)."""
        topic, running, keep, lost = self._topic.name, self._running, self._leases.keep, self._lost
        deliveries = [Delivery(topic, entry, self._held(entry), place) for entry in entries]
        for delivery in deliveries:
            running[delivery.key] = delivery
            keep(delivery.key, delivery.held, until, lost)
        return deliveries

    def _lease(self, delivery: Delivery, longest_s: float) -> None:
        self._leases.keep(delivery.key, delivery.held, monotonic() + longest_s, self._lost)

    async def _run_alone(self, taken: list[Delivery]) -> None:
        """In quarantine: if they kill this process, they are charged for it and not their neighbours."""
        try:
            await self._slots.take_alone()
        except asyncio.CancelledError:
            self._over([(delivery, Outcome.ABANDONED) for delivery in taken])
            raise
        ends: list[asyncio.Future[None]] = []
        for delivery in taken:
            delivery.place = Place.ALL
            delivery.over = asyncio.get_running_loop().create_future()
            ends.append(delivery.over)
            self._lease(delivery, self._limit_s)
        try:
            self._hands.put(taken)
            await asyncio.wait(ends)
        finally:
            self._slots.give_alone()

    def _held(self, entry: Entry) -> Lease:
        """Only steps can be cancelled: what tells the orchestrator about a task is worked on to its end."""
        in_flight = in_flight_field_in(entry.fields.get(b"id", b"").decode("ascii", "replace")) if self._steps else None
        if in_flight is None:
            return Lease(entry.stream, entry.id, entry.delivery)
        marker = (self._keys.cancel(in_flight.partition(".")[0]), entry.fields.get(b"tenant", b""))
        return Lease(entry.stream, entry.id, entry.delivery, in_flight, marker)

    async def _work(self, delivery: Delivery, task: asyncio.Task[None]) -> None:
        """In `task`, until it is handed to the completions, or over."""
        delivery.task = task
        CURRENT.set(delivery)
        held = delivery.held
        began = perf_counter()
        try:
            ending = await self._handle(delivery)
        except asyncio.CancelledError:
            self._fuse.undecided()
            if not _was_stopped(delivery):
                self._over([(delivery, Outcome.ABANDONED)])
                raise
            if delivery.stopped is not LeaseStatus.CANCELLED:
                self._over([(delivery, Outcome.ABANDONED)])
                return
            delivery.meant = Outcome.CANCELLED
            self._completions.add(Completion(held, (), only_cancelled=True), delivery)
        else:
            if delivery.stopped is not None:
                _was_stopped(delivery)  # a handler may swallow it: the next delivery must not be cancelled for it
            if self._blown(delivery.entry, ending):
                self._over([(delivery, await self._give_back(held))])
                return
            if ending is None:
                self._over([(delivery, Outcome.ABANDONED)])
                return
            delivery.meant = ending.outcome
            if ending.in_flight != held.in_flight:
                held = held._replace(in_flight=ending.in_flight)
            self._completions.add(Completion(held, tuple(ending.operations)), delivery)
        finally:
            self._seconds.observe(perf_counter() - began)

    def _answered(self, answers: Sequence[tuple[Delivery, LeaseStatus | None]]) -> None:
        """What Redis says about what has been finished."""
        done = LeaseStatus.DONE
        self._over([(one, one.meant if standing is done else _TRUTH[standing]) for one, standing in answers])

    def _over(self, ended: Iterable[tuple[Delivery, Outcome]]) -> None:
        """Each delivery comes here at its end."""
        outcomes: dict[Outcome, int] = {}
        slots, running, slot, drop = 0, self._running, Place.SLOT, self._leases.drop
        for delivery, outcome in ended:
            if running.pop(delivery.key, None) is None:
                continue
            drop(delivery.key)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if delivery.place is slot:
                slots += 1
            if delivery.over is not None and not delivery.over.done():
                delivery.over.set_result(None)
        for outcome, count in outcomes.items():
            self._messages[outcome].inc(count)
        self._running_gauge.dec(sum(outcomes.values()))
        if slots:
            self._slots.give(slots)
        if self._stopping and not self._running:
            self._drained.set()

    def _blown(self, entry: Entry, ending: HandlerResult | None) -> bool:
        """Tells the fuse; whether the entry is to be given back because of it."""
        tenant = entry.fields.get(b"tenant", b"")
        if ending is None or ending.broke:
            task = clean(entry.fields.get(b"id")).partition(".")[0]
            return self._fuse.broke(task or entry.id, tenant)
        if ending.outcome in _WELL:
            self._fuse.well(tenant)
        else:
            self._fuse.undecided()
        return False

    async def _handle(self, delivery: Delivery) -> HandlerResult | None:
        """What the handler makes of the entry, once our stores are there for it; None: it broke."""
        pause = None
        ending: HandlerResult | None = None
        while True:
            try:
                delivery.handling = True
                if ending is None:
                    ending = await self._handler(delivery.entry)
                if ending.before is not None:
                    await ending.before()
            except StoreUnavailableError as error:
                # A store of ours is away: that is no fault of the message and costs it neither attempt nor delivery.
                _log.warning("waiting for a store", error=error.message)
                self._lease(delivery, float("inf"))  # waiting is no handler's time
                pause = pause or Backoff()
                await pause.wait()
                self._lease(delivery, self._limit_s)
            except Exception:  # noqa: BLE001  whatever it is, it must end in an outcome
                _log.exception("the handler broke; the message stays pending", entry=delivery.entry.id)
                return None
            else:
                return ending
            finally:
                delivery.handling = False

    async def cancel(self, task: str) -> None:
        """Stop at once what runs of a task that Redis says is cancelled. Steps of others with this id go on."""
        marker = self._keys.cancel(task)
        handled = [one.held for one in self._running.values() if one.handling]
        held = [one for one in handled if one.marker is not None and one.marker[0] == marker]
        if held:
            for one, standing in zip(held, await self.handoff.renew(held), strict=True):
                if standing is LeaseStatus.CANCELLED:
                    self._lost(one, standing)

    def _lost(self, held: Lease, standing: LeaseStatus) -> None:
        """Another consumer has it, it is gone, or its task was cancelled: stop, what would be sent would be refused.

        Only while the handler runs: a completion that is on its way finds out by itself, and one whose reply is on
        its way is no loss.
        """
        key: Key = (held.stream, held.entry, held.delivery)
        self._leases.drop(key)
        delivery = self._running.get(key)
        if delivery is None or delivery.task is None or not delivery.handling or self._topic.timeout_s is None:
            return
        if standing is LeaseStatus.CANCELLED:
            if delivery.stopped is standing:
                return
            _log.info("stopping a step of a cancelled task", topic=self._topic.name, entry=held.entry)
        else:
            _log.warning("lost the lease of an entry", topic=self._topic.name, entry=held.entry, standing=standing)
        if delivery.stopped is None:
            delivery.task.cancel()
        delivery.stopped = standing

    def _together(self) -> int:
        """How many entries may be taken over at once."""
        return 1 if self._fuse.out else self._slots.size

    async def _taken_over(self, entries: Sequence[Entry]) -> None:
        """Begin what nobody worked on, or give it back; comes back when the next may be taken over."""
        free = max(0, self._slots.free())
        fresh: list[Entry] = []
        again: list[Entry] = []
        surplus: list[Entry] = []
        for entry in entries:
            if not self._fuse.begin():
                surplus.append(entry)
            elif entry.delivery == 1 and len(fresh) < free:
                fresh.append(entry)  # released before anyone had begun
            else:
                again.append(entry)
        if surplus:
            await self._release(surplus)
        if fresh:
            self._begin(fresh)
        if again:
            _log.info("took over entries", topic=self._topic.name, entries=[entry.id for entry in again])
            # Waiting for its turn is no handler's time: such a lease has no end of its own.
            taken = self._keep(again, Place.QUEUE, float("inf"))
            self._running_gauge.inc(len(taken))
            task = self._supervisor.spawn_task(f"alone {self._topic.name}", self._run_alone(taken))
            self._alone[task] = taken
            task.add_done_callback(self._alone.pop)
            await asyncio.wait([task])

    async def _release_unstarted(self) -> None:
        """Whatever Redis says this consumer holds and nobody here works on: also what a cut-off read left."""
        for stream in self._streams:
            pending = await self._client.xpending_range(
                stream, self._topic.group, min="-", max="+", count=1000, consumername=self.name
            )
            found = [(str(one["message_id"], "ascii"), int(one["times_delivered"])) for one in pending]  # type: ignore[arg-type]  # bytes by our decoding
            unstarted = [
                Entry(stream, entry, delivery, {})
                for entry, delivery in found
                if (stream, entry, delivery) not in self._running
            ]
            if unstarted:
                await self._release(unstarted)

    async def _release(self, entries: Sequence[Entry]) -> None:
        held = [Lease(entry.stream, entry.id, entry.delivery) for entry in entries]
        for answer in await self.handoff.release(held):
            outcome = Outcome.RELEASED if answer is LeaseStatus.RELEASED else Outcome.GONE
            MESSAGES.labels(self._topic.name, outcome).inc()

    async def _give_back(self, held: Lease) -> Outcome:
        """Of an entry that had been begun. Where Redis is away it stays pending until its lease ends."""
        try:
            (answer,) = await self.handoff.release([held])
        except TRANSIENT_REDIS_ERRORS as error:
            _log.warning("an entry stays pending", topic=self._topic.name, entry=held.entry, error=str(error))
            return Outcome.ABANDONED
        return Outcome.RETURNED if answer is LeaseStatus.RELEASED else _TRUTH[answer]


def _was_stopped(delivery: Delivery) -> bool:
    """Whether this consumer has stopped the handler. Takes the cancellation back: its task goes on with the next
    delivery.
    """
    task = delivery.task
    return delivery.stopped is not None and task is not None and task.uncancel() == 0
