"""Builds what follows from a decision as operations of the hand-off protocol."""

from typing import Any

import orjson

from octollm.contracts import StepRequested, write
from octollm.contracts.ids import in_flight_field, lane_of, message_id
from octollm.contracts.task_status import status_hash, task_status
from octollm.errors import TopologyError
from octollm.orchestrator import direct
from octollm.orchestrator.state import Decision, TaskState
from octollm.orchestrator.task_events import TaskEvent
from octollm.protocol.operations import AppendEvent, EndRun, Fields, Operation, Publish, SetStatus
from octollm.topology import LaneKeys, Topology

_MAX_OPEN_STEPS = 200
_STATUS_RESULT_BYTES = 8192
_LIVE_STATUS_TTL_S = 38 * 24 * 3600
"""Lifetime of the status of a task that has not ended: a task waits for at most 30 days and runs for at most 7."""
_ENDED_RUN_TTL_S = 7 * 24 * 3600
"""For how long Redis knows that a run has ended. No message of it can be left after that."""


class MessageBuilder:
    """Knows the topology's streams and settings; decides nothing."""

    def __init__(
        self,
        topology: Topology,
        status_ttl_s: int,
        *,
        status_result_bytes: int = _STATUS_RESULT_BYTES,
        direct_handoff: bool = False,
    ) -> None:
        """`status_ttl_s`: lifetime of a status in Redis after the task's end.

        `status_result_bytes`: size in JSON up to which the status holds a task's result, and the message for memory its
        answer.
        `direct_handoff`: steps carry the linear chain of steps that may follow them without the orchestrator.
        """
        self._topology = topology
        self.status_ttl_s = status_ttl_s
        self._status_result_bytes = status_result_bytes
        self._direct_handoff = direct_handoff
        self._max_events = topology.live["events"].max_length
        self._results = topology.topics.get("results")

    def operations(self, decision: Decision) -> tuple[Operation, ...]:
        """Return what to write to Redis after a decision was committed.

        Steps come first: a status that says "running" must not be visible before its steps exist. The status is also
        written when nothing changed, because its first publication may have been lost. Raises TopologyError for a step
        of an arm that the topology does not have.
        """
        state = decision.state
        stop = (self.end_run(state),) if decision.left_in_flight else ()
        steps = [self.step(state, request, once=decision.repeats) for request in decision.requests]
        events = [self._event(event, state.traceparent) for event in decision.events]
        result = self.result(state) if decision.finished else ()
        return (*stop, *steps, self.status(state), *result, *events)

    def step(self, state: TaskState, request: StepRequested, *, once: bool = False) -> Publish:
        """Return the message that sends a step to its arm.

        `once`: not if its in-flight field names a message already.

        Raises TopologyError for an unknown arm.
        """
        lane = lane_of(request.task)
        fields = self.step_fields(state, request)
        return Publish(self.stream(request.arm, request.priority, lane), fields, self.in_flight(request), once=once)

    def step_fields(self, state: TaskState, request: StepRequested) -> Fields:
        """Return the fields of a step's message."""
        if self._direct_handoff:
            request = direct.with_continuation(state, request)
        ident = message_id(request.task, request.run, request.step, request.round, request.attempt)
        return _fields("step.requested.v1", ident, request.tenant, state.traceparent, write(request))

    def stream(self, arm: str, priority: str, lane: str) -> str:
        """Return an arm's stream. Raises TopologyError if the topology does not have the arm."""
        topic = self._topology.arm(arm)
        if topic is None:
            raise TopologyError(f"a plan has a step for arm {arm}, which this topology does not have")
        return LaneKeys(lane).stream(topic, priority)

    def status(self, state: TaskState) -> SetStatus:
        """Return the whole status of a task: the hash may have been lost.

        A large result stays in Postgres.
        """
        key = LaneKeys(lane_of(state.task)).status(state.task)
        ttl_s = self.status_ttl_s if state.ended else _LIVE_STATUS_TTL_S
        return SetStatus(key, state.version, ttl_s, status_hash(status_of(state, self._status_result_bytes)))

    @staticmethod
    def end_run(state: TaskState) -> EndRun:
        """Return what stops the steps of a run that has ended."""
        keys = LaneKeys(lane_of(state.task))
        return EndRun(keys.ended_runs, keys.control, f"{state.task}.{state.run}", state.tenant, _ENDED_RUN_TTL_S)

    @staticmethod
    def in_flight(request: StepRequested) -> str:
        """Return the step's field in the in-flight index."""
        return in_flight_field(request.task, request.run, request.step, request.round)

    def result(self, state: TaskState) -> tuple[Publish, ...]:
        """Return the message that brings a task's result to memory; none if there is no result or no memory.

        A large answer is left out: memory takes it from the task's row.
        """
        if state.result is None or self._results is None:
            return ()
        body = write(state.result)
        too_large = len(body) > self._status_result_bytes
        if too_large and (size := len(write(state.result.answer))) > self._status_result_bytes:
            body = write(state.result.model_copy(update={"answer": None, "answer_bytes": size}))
        fields = _fields("task.result.v1", state.task, state.tenant, state.traceparent, body)
        return (Publish(LaneKeys(lane_of(state.task)).stream(self._results), fields),)

    def _event(self, event: TaskEvent, traceparent: str) -> AppendEvent:
        fields = _fields("task.event.v1", event.task, event.tenant, traceparent, event.body)
        return AppendEvent(LaneKeys(lane_of(event.task)).events, self._max_events, fields)


def _fields(type_: str, ident: str, tenant: str, traceparent: str, body: bytes) -> Fields:
    return {"type": type_, "id": ident, "tenant": tenant, "traceparent": traceparent, "body": body}


def status_of(state: TaskState, max_result_bytes: int = _STATUS_RESULT_BYTES) -> dict[str, Any]:
    """Return a task's status (`task.status.v1`); `open` has the steps in flight, longest first.

    A result of more than `max_result_bytes` is replaced by its size, `result_bytes`.
    """
    result = None if state.result is None else write(state.result)
    too_large = result is not None and len(result) > max_result_bytes
    in_flight = [row for row in state.steps.values() if row.state == "sent" and not row.early_results]
    in_flight.sort(key=lambda row: (row.sent_at, row.step))
    return task_status(
        task=state.task,
        tenant=state.tenant,
        kind=state.kind,
        state=state.state,
        run=state.run,
        version=state.version,
        reason=state.reason,
        detail=state.detail,
        created_at=state.received_at,
        updated_at=state.updated_at or state.received_at,
        metadata=state.submission.get("metadata"),
        open_steps=[
            {"step": row.step, "arm": row.arm, "sent_at": row.sent_at}
            for row in ([] if state.ended else in_flight[:_MAX_OPEN_STEPS])
        ],
        result=None if result is None or too_large else orjson.Fragment(result),
        result_bytes=len(result) if result is not None and too_large else None,
    )
