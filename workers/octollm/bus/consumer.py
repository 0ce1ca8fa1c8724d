"""One consumer of one topic in one lane: reads, runs, finishes, takes over what others left, and leaves in order.

The handler decides what an entry leads to; everything about leases, deliveries and acknowledgement is here.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter

import redis.asyncio
import structlog
from faststream.redis import RedisBroker

from octollm.bus.completions import Completions
from octollm.bus.fuse import NEVER, Fuse, FuseRule
from octollm.bus.handoff import Entry, Finish, Handoff, Standing
from octollm.bus.leases import Leases
from octollm.bus.letters import clean
from octollm.bus.operations import Held, Marker
from octollm.bus.outcomes import MESSAGES, RUNNING, SECONDS, TROUBLE, Ending, Outcome
from octollm.bus.pauses import TROUBLES, Pause
from octollm.bus.reader import create_groups, subscribe
from octollm.bus.slots import Slots
from octollm.bus.tasks import end
from octollm.contracts.ids import parse_message_id
from octollm.errors import NotReadyError
from octollm.topology import ARM, LaneKeys, Topic

_log = structlog.get_logger(__name__)
Handler = Callable[[Entry], Awaitable[Ending]]
_Delivery = tuple[str, str, int]
"""Stream, entry id, delivery count."""
FORGET_AFTER_S = 600.0
"""After how long without a word a worker that owns nothing is taken for gone; a living one reads every two seconds."""
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
        fuse: FuseRule = NEVER,
    ) -> None:
        self._client = client
        self._leases = leases
        self._topic = topic
        self.name = consumer
        self._handler = handler
        self._keys = LaneKeys(lane)
        self._streams = self._keys.streams(topic)
        self.handoff = Handoff(client, lane, topic.group, consumer)
        self._completions = Completions(self.handoff, topic.name)
        self._slots = Slots(concurrency)
        self._fuse = Fuse(fuse, topic.name)
        # By delivery, too: when Redis stood still for longer than a lease, an entry may come back while it still runs.
        self._running: dict[_Delivery, asyncio.Task[None]] = {}
        self._handling: dict[_Delivery, Held] = {}
        """Whose handler runs right now; what is being finished is no longer among them."""
        self._cancelled: set[_Delivery] = set()
        """Whose handler is being stopped because its task was cancelled."""
        self._waiting: set[_Delivery] = set()
        """Who waits to be alone: taken over and not begun."""
        self._claims: asyncio.Task[None] | None = None
        self._stopping = False
        self._next_forgetting = 0.0

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
        self._claims = asyncio.create_task(self._claim_for_ever(), name=f"claim {self._topic.name}")
        subscribe(broker, self._topic.name, self._streams, self._topic.group, self.name, self._room, self._take)

    async def stop(self, drain_s: float) -> None:
        """After the broker has stopped reading: give back what has not begun, wait for the rest, leave the group."""
        self._stopping = True
        if self._claims is not None:
            await end([self._claims])
        await end([self._running[key] for key in self._waiting if key in self._running])
        try:
            await asyncio.wait_for(self._release_unstarted(), timeout=5)
        except (*TROUBLES, NotReadyError) as error:
            _log.warning("unstarted entries stay pending", topic=self._topic.name, error=str(error))
        if self._running:
            await asyncio.wait(self._running.values(), timeout=drain_s)
        await end(list(self._running.values()))
        await self._completions.stop()
        self._fuse.retire()
        try:
            await asyncio.wait_for(self.handoff.leave(self._streams), timeout=5)
        except TROUBLES as error:
            _log.warning("could not leave the consumer group", topic=self._topic.name, error=str(error))

    async def _room(self) -> int:
        return await self._fuse.room(await self._slots.room())

    async def _take(self, entries: Sequence[Entry]) -> None:
        """Start what there is room for; give back the rest."""
        surplus = []
        for entry in entries:
            if self._slots.free() > 0 and not self._stopping and self._fuse.begin():
                self._begin(entry)
            else:
                surplus.append(entry)
        if surplus:
            await self._release(surplus)

    def _begin(self, entry: Entry) -> None:
        self._slots.take()
        self._track(entry, self._run_in_slot(entry))

    def _track(self, entry: Entry, work: Awaitable[None]) -> None:
        key = (entry.stream, entry.id, entry.delivery)
        task = asyncio.ensure_future(work)
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))

    async def _run_in_slot(self, entry: Entry) -> None:
        try:
            await self._run(entry)
        finally:
            await self._slots.give()

    async def _run_alone(self, entry: Entry) -> None:
        """In quarantine: if it kills this process, it is charged for it and not its neighbours."""
        # Waiting for its turn is no handler's time: its lease has no end of its own.
        held = self._keep(entry, float("inf"))
        key = (entry.stream, entry.id, entry.delivery)
        self._waiting.add(key)
        try:
            await self._slots.take_alone()
        except asyncio.CancelledError:
            self._leases.drop(held)
            raise
        finally:
            self._waiting.discard(key)
        try:
            await self._run(entry)
        finally:
            await self._slots.give_alone()

    def _keep(self, entry: Entry, longest_s: float) -> Held:
        held = self._held(entry)
        self._leases.keep(held, longest_s, self._lost)
        return held

    def _held(self, entry: Entry) -> Held:
        """Only steps can be cancelled: what tells the orchestrator about a task is worked on to its end."""
        step = parse_message_id(clean(entry.fields.get(b"id"))) if self._topic.name.startswith(ARM) else None
        if step is None:
            return Held(entry.stream, entry.id, entry.delivery)
        marker = Marker(self._keys.cancel(step.task), clean(entry.fields.get(b"tenant")))
        return Held(entry.stream, entry.id, entry.delivery, step.live_field, marker)

    def _limit_s(self) -> float:
        """How long a lease is kept for a handler. Without a limit of its own (the orchestrator's topics) it waits for
        Postgres as long as it takes.
        """
        limit_s = self._topic.timeout_s
        return float("inf") if limit_s is None else limit_s + _GRACE_S

    async def _run(self, entry: Entry) -> None:
        """One delivery, from its lease to its outcome."""
        topic = self._topic.name
        held = self._keep(entry, self._limit_s())
        RUNNING.labels(topic).inc()
        outcome = Outcome.ABANDONED
        context = {"message": clean(entry.fields.get(b"id")), "tenant": clean(entry.fields.get(b"tenant"))}
        trace = clean(entry.fields.get(b"traceparent"))[3:35]
        try:
            with structlog.contextvars.bound_contextvars(topic=topic, trace=trace, **context):
                outcome = await self._work(entry, held)
        finally:
            self._leases.drop(held)
            RUNNING.labels(topic).dec()
            MESSAGES.labels(topic, outcome).inc()

    async def _work(self, entry: Entry, held: Held) -> Outcome:
        key = (entry.stream, entry.id, entry.delivery)
        began = perf_counter()
        try:
            ending = await self._handle(entry, held, key)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            self._fuse.undecided()
            if key not in self._cancelled or task is None or task.uncancel() > 0:
                raise
            return _outcome(await self._completions.finish(Finish(held, (), only_cancelled=True)), Outcome.CANCELLED)
        finally:
            self._cancelled.discard(key)
            SECONDS.labels(self._topic.name).observe(perf_counter() - began)
        if self._blown(entry, ending):
            return await self._give_back(held)
        if ending is None:
            return Outcome.ABANDONED
        fenced = Held(held.stream, held.entry, held.delivery, ending.live, held.marker)
        return _outcome(await self._completions.finish(Finish(fenced, tuple(ending.operations))), ending.outcome)

    def _blown(self, entry: Entry, ending: Ending | None) -> bool:
        """Tells the fuse; whether the entry is to be given back because of it."""
        tenant = clean(entry.fields.get(b"tenant"))
        if ending is None or ending.broke:
            task = clean(entry.fields.get(b"id")).partition(".")[0]
            return self._fuse.broke(task or entry.id, tenant)
        if ending.outcome in {Outcome.DONE, Outcome.FAILED}:
            self._fuse.well(tenant)
        else:
            self._fuse.undecided()
        return False

    async def _handle(self, entry: Entry, held: Held, key: _Delivery) -> Ending | None:
        """What the handler makes of the entry, once our stores are there for it; None: it broke."""
        pause = Pause()
        ending: Ending | None = None
        while True:
            try:
                self._handling[key] = held
                if ending is None:
                    ending = await self._handler(entry)
                if ending.before is not None:
                    await ending.before()
            except NotReadyError as error:
                # A store of ours is away: that is no fault of the message and costs it neither attempt nor delivery.
                _log.warning("waiting for a store", error=error.message)
                self._keep(entry, float("inf"))  # waiting is no handler's time
                await pause.wait()
                self._keep(entry, self._limit_s())
            except Exception:  # noqa: BLE001  whatever it is, it must end in an outcome
                _log.exception("the handler broke; the message stays pending", entry=entry.id)
                return None
            else:
                return ending
            finally:
                self._handling.pop(key, None)

    async def cancel(self, task: str) -> None:
        """Stop at once what runs of a task that Redis says is cancelled. Steps of others with this id go on."""
        marker = self._keys.cancel(task)
        held = [one for one in self._handling.values() if one.marker is not None and one.marker.key == marker]
        if held:
            for one, standing in zip(held, await self.handoff.renew(held), strict=True):
                if standing is Standing.CANCELLED:
                    self._lost(one, standing)

    def _lost(self, held: Held, standing: Standing) -> None:
        """Another consumer has it, it is gone, or its task was cancelled: stop, what would be sent would be refused.

        Only while the handler runs: a completion that is on its way finds out by itself, and one whose reply is on
        its way is no loss.
        """
        self._leases.drop(held)
        key = (held.stream, held.entry, held.delivery)
        task = self._running.get(key)
        if task is None or key not in self._handling or self._topic.timeout_s is None:
            return
        if standing is Standing.CANCELLED:
            if key in self._cancelled:
                return
            _log.info("stopping a step of a cancelled task", topic=self._topic.name, entry=held.entry)
            self._cancelled.add(key)
        else:
            _log.warning("lost the lease of an entry", topic=self._topic.name, entry=held.entry, standing=standing)
        task.cancel()

    async def _claim_for_ever(self) -> None:
        pause = Pause()
        while True:
            try:
                await self._forget_the_dead()
                more = await self._claim_once()
                pause.over()
            except TROUBLES as error:
                TROUBLE.labels(self._topic.name, "claim").inc()
                _log.warning("cannot look for abandoned entries", topic=self._topic.name, error=str(error))
                await pause.wait()
                continue
            if not more:
                # Jitter, so that a pool of workers looks all the time and not all at once.
                await asyncio.sleep(self._topic.heartbeat_s * random.uniform(0.2, 1.0))  # noqa: S311

    async def _forget_the_dead(self) -> None:
        """Names of workers that are gone and own nothing. A living one would come back with its next read."""
        if time.monotonic() < self._next_forgetting:
            return
        self._next_forgetting = time.monotonic() + FORGET_AFTER_S
        for stream in self._streams:
            for one in await self._client.xinfo_consumers(stream, self._topic.group):
                name = str(one["name"], "utf-8", "replace")
                if name != self.name and one["pending"] == 0 and one["idle"] >= FORGET_AFTER_S * 1000:
                    await self.handoff.leave([stream], name)

    async def _claim_once(self) -> bool:
        """Take over one entry per stream where there is room; whether there may be more.

        One: taking over counts as a delivery, and an entry that waits here behind one that kills this process would
        be charged for it, until it is given up on without ever having run.
        """
        found = False
        for stream in self._streams:
            await self._room()
            entries, dead = await self.handoff.claim(stream, self._topic, 1)
            for given_up in dead:
                MESSAGES.labels(self._topic.name, Outcome.DEAD).inc()
                _log.error("gave up on an entry that was delivered too often", topic=self._topic.name, entry=given_up)
            for entry in entries:
                if not self._fuse.begin():
                    await self._release([entry])
                elif entry.delivery == 1 and self._slots.free() > 0:
                    self._begin(entry)  # released before anyone had begun
                else:
                    _log.info("took over an entry", topic=self._topic.name, entry=entry.id, delivery=entry.delivery)
                    self._track(entry, self._run_alone(entry))
                    await asyncio.wait([self._running[entry.stream, entry.id, entry.delivery]])
            found = found or bool(entries or dead)
        return found

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
        held = [Held(entry.stream, entry.id, entry.delivery) for entry in entries]
        for answer in await self.handoff.release(held):
            outcome = Outcome.RELEASED if answer is Standing.RELEASED else Outcome.GONE
            MESSAGES.labels(self._topic.name, outcome).inc()

    async def _give_back(self, held: Held) -> Outcome:
        """Of an entry that had been begun. Where Redis is away it stays pending until its lease ends."""
        try:
            (answer,) = await self.handoff.release([held])
        except TROUBLES as error:
            _log.warning("an entry stays pending", topic=self._topic.name, entry=held.entry, error=str(error))
            return Outcome.ABANDONED
        return Outcome.HELD if answer is Standing.RELEASED else _outcome(answer, Outcome.HELD)


def _outcome(standing: Standing | None, meant: Outcome) -> Outcome:
    """How a delivery ended in truth."""
    match standing:
        case Standing.DONE:
            return meant
        case Standing.CANCELLED:
            return Outcome.CANCELLED
        case Standing.STALE:
            return Outcome.STALE
        case Standing.GONE:
            return Outcome.GONE
        case _:
            return Outcome.ABANDONED
