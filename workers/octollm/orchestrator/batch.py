"""Applies the messages of one transaction one by one to the tasks they are about. Pure."""

from collections.abc import Mapping
from typing import Any

import structlog

from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import Accepted, CancelRequested, Event, Redelivered, Rejected
from octollm.orchestrator.intake import TaskMessage
from octollm.orchestrator.state import Decision, StepEnded, TaskState

_log = structlog.get_logger(__name__)


class Batch:
    """The tasks of one transaction, updated message by message."""

    def __init__(
        self,
        known: Mapping[str, TaskState],
        key_holders: Mapping[tuple[str, str], str],
        outputs: Mapping[tuple[str, str], Mapping[str, Any]],
        cancel_requests: Mapping[tuple[str, str], str | None],
        now: str,
    ) -> None:
        """`known`: stored tasks by id. `key_holders`: the task that holds each (tenant, idempotency key).

        `outputs`: stored outputs by (tenant, SHA-256). `cancel_requests`: details of cancel requests that
        arrived before their task, by (task, requesting tenant).
        """
        self._states = dict(known)
        self._known = frozenset(known)
        self._key_holders = key_holders
        self._outputs = outputs
        self._cancel_requests = dict(cancel_requests)
        self._early_requests: dict[tuple[str, str], CancelRequested] = {}
        self._now = now
        self._decisions: dict[tuple[str, int], Decision] = {}

    def apply(self, message: TaskMessage) -> Decision | None:
        """Return the decision about one message; None if its task is unknown.

        Raises KeyError for an output that is not stored: the arm has to store it before it reports it.
        """
        state, event = self._states.get(message.task), message.event
        if message.first_state is not None:
            event = Redelivered() if state is not None else self._first_event(message.first_state, event)
            state = state or message.first_state
        if state is None:
            self._unknown_task(message.task, event)
            return None
        if isinstance(event, StepEnded) and message.stored_output is not None:
            event = event._replace(output=self._outputs[message.stored_output])
        decision = decide(state, event, self._now)
        self._add(decision)
        return decision

    @property
    def early_cancel_requests(self) -> list[dict[str, str | None]]:
        """The rows of cancel requests for tasks that are still unknown."""
        return [
            {"task": task, "tenant": tenant, "detail": request.detail, "requested_at": request.requested_at}
            for (task, tenant), request in self._early_requests.items()
            if task not in self._states
        ]

    def changed(self, *, new: bool) -> list[Decision]:
        """Return what has to be stored, one decision per run of a task, in order.

        `new`: of tasks not stored before.
        """
        return [one for (task, _), one in sorted(self._decisions.items()) if (task not in self._known) == new]

    def _unknown_task(self, task: str, event: Event) -> None:
        if isinstance(event, CancelRequested):
            self._cancel_requests.setdefault((task, event.tenant), event.detail)
            self._early_requests.setdefault((task, event.tenant), event)
        else:
            # A step's end: Redis knows a task that Postgres does not, for instance after a restore of an older backup.
            _log.warning("a message is about an unknown task", task=task, event_type=type(event).__name__)

    def _first_event(self, first_state: TaskState, event: Event) -> Event:
        task, tenant = first_state.task, first_state.tenant
        holder = self._key_holders.get((tenant, first_state.idempotency_key), task)
        if holder != task:
            return Rejected("duplicate", f"duplicate of {holder}, which has the same idempotency key")
        if isinstance(event, Accepted) and (task, tenant) in self._cancel_requests:
            return CancelRequested(tenant, self._cancel_requests[task, tenant])
        return event

    def _add(self, decision: Decision) -> None:
        task = decision.state.task
        self._states[task] = decision.state
        if not decision.changed:
            return
        key = (task, decision.state.run)
        earlier = self._decisions.get(key)
        if earlier is None:
            # A copy: what the caller publishes for this message must not grow with later messages.
            self._decisions[key] = decision.copy()
        else:
            earlier.merge(decision)
