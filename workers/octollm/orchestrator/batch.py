"""One transaction's messages, worked through one by one on the tasks as they become. Pure."""

from collections.abc import Mapping
from typing import Any

import structlog

from octollm.contracts import TaskCancel
from octollm.orchestrator import direct
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import Accepted, CancelRequested, Event, Met, Refused
from octollm.orchestrator.intake import Cancel, Ended, Redrive, Submitted, Understood
from octollm.orchestrator.messages import Outgoing, Send
from octollm.orchestrator.state import Decision, TaskState
from octollm.orchestrator.status import status_of

_log = structlog.get_logger(__name__)


class Work:
    """One transaction's tasks as they become, event by event."""

    def __init__(
        self,
        known: Mapping[str, TaskState],
        holders: Mapping[tuple[str, str], str],
        outputs: Mapping[tuple[str, str], Mapping[str, Any]],
        requests: Mapping[tuple[str, str], str | None],
        now: str,
        *,
        hand_on: bool = False,
    ) -> None:
        """`requests`: why new tasks shall be cancelled, by task and by tenant who asked before they came. `hand_on`:
        steps may be handed on directly.
        """
        self._hand_on = hand_on
        self._states = dict(known)
        self._known = frozenset(known)
        self._holders = holders
        self._outputs = outputs
        self._requests = dict(requests)
        self._unknown: list[TaskCancel] = []
        self._now = now
        self._decisions: dict[tuple[str, int], Decision] = {}

    def apply(self, one: Understood) -> Outgoing:
        """What follows from one message."""
        state = self._states.get(one.task)
        event: Event
        match one:
            case Submitted():
                event = Met() if state is not None else self._first_event(one)
                state = state or one.first
            case Cancel():
                if state is None:
                    self._requests.setdefault((one.task, one.request.tenant), one.request.detail)
                    self._unknown.append(one.request)
                    return Outgoing()
                event = one.event
            case Redrive():
                if state is None:
                    _log.warning("an unknown task is to run again", task=one.task)
                    return Outgoing()
                event = one.event
            case Ended():
                if state is None:
                    # Redis knows a task that Postgres does not: a database that was restored to an older day.
                    _log.warning("a step of an unknown task ended", task=one.task)
                    return Outgoing()
                event = one.event(self._outputs)
        decision = decide(state, event, self._now)
        self._remember(decision)
        ended = decision.state.ended and (decision.opened or not state.ended)
        return outgoing(decision, ended=ended, hand_on=self._hand_on)

    @property
    def unknown(self) -> list[dict[str, str | None]]:
        """The requests to cancel tasks that are still not known."""
        names = ("task", "tenant", "detail", "requested_at")
        return [{name: getattr(one, name) for name in names} for one in self._unknown if one.task not in self._states]

    def changed(self, *, new: bool) -> list[Decision]:
        """What has to be stored: one decision per run of a task, in order."""
        return [one for (task, _), one in sorted(self._decisions.items()) if (task not in self._known) == new]

    def _first_event(self, one: Submitted) -> Event:
        holder = self._holders.get((one.first.tenant, one.first.idempotency_key), one.first.task)
        if holder != one.first.task:
            return Refused("duplicate", f"duplicate of {holder}, which came with the same idempotency key")
        asked = (one.task, one.first.tenant)
        if isinstance(one.event, Accepted) and asked in self._requests:
            return CancelRequested(one.first.tenant, self._requests[asked])
        return one.event

    def _remember(self, decision: Decision) -> None:
        task = decision.state.task
        self._states[task] = decision.state
        key = (task, decision.state.run)
        earlier = self._decisions.get(key)
        if not decision.changed:
            return
        if earlier is None:
            self._decisions[key] = decision
            return
        earlier.state = decision.state
        earlier.steps |= decision.steps
        earlier.attempts += decision.attempts
        earlier.events += decision.events
        earlier.planned |= decision.planned


def outgoing(decision: Decision, *, ended: bool, hand_on: bool = False) -> Outgoing:
    """What follows from a decision. `ended`: it ended the task, and memory does not know yet. `hand_on`: see `Work`."""
    state = decision.state
    steps = (direct.with_rest(state, step) if hand_on else step for step in decision.sends)
    return Outgoing(
        sends=tuple(Send(step, state.traceparent, decision.again) for step in steps),
        # A copy: a later event of the same task in this transaction adds to the decision's own list.
        events=tuple(decision.events),
        traceparent=state.traceparent,
        # Also when nothing changed: the first publication may have been lost.
        status=status_of(state),
        result=state.result if ended else None,
    )
