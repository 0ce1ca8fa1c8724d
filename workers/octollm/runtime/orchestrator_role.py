"""The orchestrator and the archive as handlers of the bus: entries become messages, answers become operations."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from octollm.consumer.consumer import Handler
from octollm.consumer.worker import Worker
from octollm.contracts import StepRequested, TaskResult, write
from octollm.contracts.ids import in_flight_field, lane_of, message_id
from octollm.database.pool import Pool
from octollm.errors import StoreUnavailableError, TopologyError
from octollm.orchestrator.gather import Gatherer
from octollm.orchestrator.messages import Incoming, Outgoing, Send, StatusUpdate, Unreadable
from octollm.orchestrator.retention import purge, unremembered
from octollm.orchestrator.service import Orchestrator
from octollm.orchestrator.task_events import Told
from octollm.protocol.fields import clean
from octollm.protocol.handoff import Entry
from octollm.protocol.operations import AppendEvent, Fields, Operation, Publish, SetStatus
from octollm.protocol.outcomes import HandlerResult, Outcome
from octollm.steps.dead_letters import dead_letter
from octollm.topology import LaneKeys, Topic, Topology

_BATCH = 200
_log = structlog.get_logger(__name__)


class Translator:
    """Between the orchestrator's messages and the bus."""

    def __init__(self, topology: Topology, status_ttl_s: int) -> None:
        self._topology = topology
        self._status_ttl_s = status_ttl_s
        self._live = topology.live["events"].max_length
        self._results = topology.topics.get("results")

    def operations(self, answer: Outgoing) -> tuple[Operation, ...]:
        """Steps first: a status that says "running" must not be there before its steps are."""
        adds = [self.add(send) for send in answer.sends]
        status = [self.status(answer.status)] if answer.status else []
        events = [self._event(told, answer.traceparent) for told in answer.events]
        results = []
        if self._results is not None and answer.result is not None:
            results.append(self._result(self._results, answer.result, answer.traceparent))
        return (*adds, *status, *results, *events)

    def target(self, arm: str, priority: str, lane: str) -> str:
        """Stream of an arm."""
        topic = self._topology.arm(arm)
        if topic is None:
            raise TopologyError(f"a plan has a step for arm {arm}, which this topology does not have")
        return LaneKeys(lane).stream(topic, priority)

    def add(self, send: Send) -> Publish:
        """A step on its way to its arm."""
        step = send.step
        return Publish(
            self.target(step.arm, step.priority, lane_of(step.task)),
            step_fields(send),
            in_flight_field_of(step),
            once=send.again,
        )

    def status(self, update: StatusUpdate) -> SetStatus:
        """Its time to live begins at a terminal state."""
        key = LaneKeys(lane_of(update.task)).status(update.task)
        return SetStatus(key, update.version, self._status_ttl_s if update.ended else 0, update.fields)

    def _result(self, topic: Topic, result: TaskResult, traceparent: str) -> Publish:
        """What memory works on, where the topology has one."""
        fields: Fields = {
            "type": "task.result.v1",
            "id": result.task,
            "tenant": result.tenant,
            "traceparent": traceparent,
            "body": write(result),
        }
        return Publish(LaneKeys(lane_of(result.task)).stream(topic), fields)

    def _event(self, told: Told, traceparent: str) -> AppendEvent:
        fields: Fields = {
            "type": "task.event.v1",
            "id": told.task,
            "tenant": told.tenant,
            "traceparent": traceparent,
            "body": told.body,
        }
        return AppendEvent(LaneKeys(lane_of(told.task)).events, self._live, fields)


def step_fields(send: Send) -> Fields:
    """A step's message."""
    step = send.step
    return {
        "type": "step.requested.v1",
        "id": message_id(step.task, step.run, step.step, step.round, step.attempt),
        "tenant": step.tenant,
        "traceparent": send.traceparent,
        "body": write(step),
    }


def in_flight_field_of(step: StepRequested) -> str:
    """The step's field in the in-flight index."""
    return in_flight_field(step.task, step.run, step.step, step.round)


def gathered(gatherer: Gatherer, translator: Translator, topic: Topic, lane: str, consumer: str) -> Handler:
    """The handler of a topic whose messages are worked on many at a time."""
    keys = LaneKeys(lane)

    async def handle(entry: Entry) -> HandlerResult:
        answer = await gatherer.submit(_incoming(entry))
        # A step's end: from now on its in-flight field names nothing.
        live = ""
        if entry.fields.get(b"type") == b"step.done.v1":
            live = clean(entry.fields.get(b"id")).rpartition(".")[0]
        if isinstance(answer, Unreadable):
            _log.warning("a message cannot be read and is given up on", reason=answer.reason, fault=answer.message)
            operations, _ = dead_letter(entry, topic, keys, consumer, answer.reason, answer.message)
            return HandlerResult(Outcome.DEAD, operations, live)
        return HandlerResult(Outcome.DONE, translator.operations(answer), live)

    return handle


def _incoming(entry: Entry) -> Incoming:
    fields = entry.fields
    return Incoming(
        type=clean(fields.get(b"type")),
        id=clean(fields.get(b"id")),
        tenant=clean(fields.get(b"tenant")),
        traceparent=clean(fields.get(b"traceparent")),
        body=fields.get(b"body", b""),
        entry=f"{entry.stream} {entry.id}",
        original=fields.get(b"original", b""),
    )


async def tick(every_s: float, work: Callable[[], Awaitable[object]], what: str) -> None:
    """Do something again and again, also when a store is away for a while. `what`: its name in the log."""
    while True:
        # Jitter: several orchestrators take turns.
        await asyncio.sleep(every_s * random.uniform(0.5, 1.0))  # noqa: S311
        try:
            await work()
        except StoreUnavailableError as error:
            _log.warning(f"skipped {what}", error=error.message)
        except Exception:  # noqa: BLE001  whatever it is, the next look must come
            _log.exception(f"{what} broke; it is tried again")


async def expire(orchestrator: Orchestrator, translator: Translator, worker: Worker) -> None:
    """End the tasks whose deadline has passed, and say so; first of those where that went wrong before."""
    look = orchestrator.status_pending
    while True:
        ended = await look(_BATCH)
        tasks = []
        for answer in ended:
            if answer.status is not None:
                await worker.publish(lane_of(answer.status.task), translator.operations(answer))
                tasks.append(answer.status.task)
        if tasks:
            await orchestrator.told(tasks)
        if len(ended) < _BATCH:
            if look == orchestrator.expire:
                return
            look = orchestrator.expire


async def begin(orchestrator: Orchestrator, translator: Translator, worker: Worker) -> None:
    """Begin the tasks that were put off and whose moment has come."""
    while True:
        begun = await orchestrator.begin(_BATCH)
        tasks = []
        for answer in begun:
            if answer.status is not None:
                await worker.publish(lane_of(answer.status.task), translator.operations(answer))
                tasks.append(answer.status.task)
        if tasks:
            await orchestrator.told(tasks)
        if len(begun) < _BATCH:
            return


async def forget(worker: Worker, cursors: dict[str, int]) -> None:
    """Look at some of the in-flight index of each lane, and forget those that a deleted stream has left behind: where
    their
    tasks have ended, nobody else would. `cursors`: by lane, where the next look begins.
    """
    for lane, cursor in cursors.items():
        cursors[lane], forgotten = await worker.prune(lane, cursor, _BATCH)
        if forgotten:
            _log.info("forgot in-flight index whose message is nowhere any more", lane=lane, steps=forgotten)


async def remind(pool: Pool, topology: Topology, translator: Translator, worker: Worker) -> None:
    """Send again the results that memory should have taken in long ago."""
    topic = topology.topics.get("results")
    if topic is None:
        return
    oldest_ms = await worker.oldest_ms(topic)
    oldest = None if oldest_ms is None else datetime.fromtimestamp(oldest_ms / 1000, UTC)
    for answer in await unremembered(pool, two_leases_s(topology), oldest, _BATCH):
        if answer.result is not None:
            await worker.publish(lane_of(answer.result.task), translator.operations(answer))


async def clear(pool: Pool, topology: Topology, days: int) -> None:
    """Delete what ended more than `days` ago."""
    while await purge(pool, days, _BATCH, memory="results" in topology.topics):
        pass


def two_leases_s(topology: Topology) -> float:
    """After that whoever had a message has lost it."""
    return 2.0 * max(topic.lease_s for topic in topology.topics.values())
