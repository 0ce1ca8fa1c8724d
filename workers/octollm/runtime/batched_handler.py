"""Handlers of the topics whose messages are processed in batches: `tasks`, `steps.done`, `dead` and `results`."""

import structlog

from octollm.batching import Batcher
from octollm.consumer.executor import Handler
from octollm.contracts.ids import in_flight_field_in
from octollm.orchestrator.intake import InvalidMessage
from octollm.orchestrator.service import Answer
from octollm.protocol.fields import clean
from octollm.protocol.handoff import Entry
from octollm.protocol.outcomes import HandlerResult, Outcome
from octollm.steps.dead_letters import dead_letter
from octollm.topology import LaneKeys, Topic

_log = structlog.get_logger(__name__)


def batched_handler(batcher: Batcher[Entry, Answer], topic: Topic, lane: str, consumer: str) -> Handler:
    """Return a handler that adds each entry to a batch and publishes what follows from it."""
    keys = LaneKeys(lane)

    async def handle(entry: Entry) -> HandlerResult:
        answer = await batcher.submit(entry)
        in_flight = ""
        if entry.fields.get(b"type") == b"step.done.v1":
            # The step has ended: its field in the in-flight index is removed with this entry.
            in_flight = in_flight_field_in(clean(entry.fields.get(b"id"))) or ""
        if isinstance(answer, InvalidMessage):
            _log.warning("a message cannot be processed", reason=answer.reason, error=answer.message)
            operations, _ = dead_letter(entry, topic, keys, consumer, answer.reason, answer.message)
            return HandlerResult(Outcome.DEAD, operations, in_flight)
        return HandlerResult(Outcome.DONE, answer, in_flight)

    return handle


def task_of(entry: Entry) -> str:
    """Return the task of an entry, or what its id begins with.

    Entries of one task are never processed concurrently.
    """
    return clean(entry.fields.get(b"id")).partition(".")[0]
