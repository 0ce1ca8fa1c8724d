"""`decide` on tasks that were put off: nothing is sent before their moment, and all of it once after."""

from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import Accepted, NotBeforeReached
from octollm.orchestrator.planning import Planning
from tests.helpers.decisions import ARMS, BOOK, LATER, NOW, OURS, accepted, fresh

PLANNING = Planning(BOOK, ARMS)


def test_a_task_begins_when_its_moment_has_come_and_once():
    waiting = accepted(not_before=LATER)
    assert (waiting.state.state, waiting.requests, waiting.state.plan) == ("accepted", [], None)
    assert [(event.event, event.detail) for event in waiting.events] == [("accepted", f"starts at {LATER}")]
    assert decide(waiting.state, NotBeforeReached(PLANNING), NOW).changed is False
    begun = decide(waiting.state, NotBeforeReached(PLANNING), LATER)
    assert ([step.step for step in begun.requests], begun.state.state) == (["first"], "running")
    assert decide(begun.state, NotBeforeReached(PLANNING), LATER).changed is False


def test_a_moment_that_has_passed_puts_nothing_off():
    assert len(accepted(not_before=NOW).requests) == 1


def test_it_is_cancelled_and_refused_while_it_waits():
    waiting = accepted(not_before=LATER)
    cancelled = decide(waiting.state, OURS, NOW).state
    assert cancelled.state == "cancelled"
    assert decide(cancelled, NotBeforeReached(PLANNING), LATER).changed is False
    unknown = decide(fresh(kind="unheard-of", not_before=LATER), Accepted(PLANNING), NOW).state
    assert (unknown.state, unknown.reason) == ("rejected", "unknown_kind")
