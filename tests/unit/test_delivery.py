"""The life of a delivery: one whole table of transitions, shown in the docs, and a pool whose books stay right."""

import asyncio
import math
import re
from collections import Counter
from itertools import count, product
from typing import Any, cast

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from octollm.consumer.delivery import HANDLED, TRANSITIONS, Delivery, Event, IllegalTransitionError, State
from octollm.consumer.leases import LeaseRenewer
from octollm.consumer.pool import DeliveryPool
from octollm.protocol.handoff import Entry, LeaseStatus
from octollm.protocol.operations import Lease
from octollm.protocol.outcomes import Outcome
from octollm.resources import checkout
from tests.helpers.consumers import KEYS, judge

STREAM = KEYS.stream(judge())
_numbers = count(1)


def entry(delivery=1):
    return Entry(STREAM, f"{next(_numbers)}-0", delivery, {b"tenant": b"default"})


def delivery(state=State.LEASED):
    one = entry()
    return Delivery("arm.judge", one, Lease(STREAM, one.id, 1), state)


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_pair_of_state_and_event_is_in_the_table_or_refused(state, event):
    one = delivery(state)
    if (state, event) in TRANSITIONS:
        one.advance(event)
        assert one.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransitionError, match=f"event {event} in state {state}"):
            one.advance(event)
        assert one.state is state


def reachable(states):
    found = set(states)
    while new := {to for (since, _), to in TRANSITIONS.items() if since in found} - found:
        found |= new
    return found


def test_every_state_is_reached_and_each_one_leads_to_the_end():
    assert reachable({State.LEASED, State.WAITING_ALONE}) == set(State)
    assert all(State.ENDED in reachable({state}) for state in State)
    assert not [event for state, event in TRANSITIONS if state is State.ENDED]


def test_every_event_occurs_and_any_state_but_the_last_can_be_abandoned():
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert {state for state, event in TRANSITIONS if event is Event.ABANDON} == set(State) - {State.ENDED}


def test_the_docs_show_this_table():
    root = checkout()
    assert root is not None
    text = (root / "docs/delivery.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE)
    assert {(State(since), Event(event)): State(to) for since, event, to in rows} == dict(TRANSITIONS)
    assert len(rows) == len(TRANSITIONS)


class Leases:
    """What the pool has renewed, and until when."""

    def __init__(self):
        self.until: dict[Any, float] = {}

    def add(self, key, _lease, until, _on_lost):
        self.until[key] = until

    def remove(self, key):
        self.until.pop(key, None)


class Task:
    """Stands for a task of the pool that runs a handler."""

    def __init__(self):
        self.cancellations = 0

    def cancel(self):
        self.cancellations += 1

    def uncancel(self):
        self.cancellations -= 1
        return self.cancellations


class Pool(RuleBasedStateMachine):
    """Whatever happens to deliveries in whatever order, the pool's books are right."""

    SIZE = 4

    def __init__(self):
        super().__init__()
        self.leases = Leases()
        self.pool = DeliveryPool(judge(), KEYS, self.SIZE, cast("LeaseRenewer", self.leases))
        self.alive: list[Delivery] = []
        self.ended = 0

    deliveries = Bundle("deliveries")

    @rule(target=deliveries, many=st.integers(1, SIZE))
    def admit(self, many):
        admitted = self.pool.admit([entry() for _ in range(min(many, self.pool.free()))])
        self.alive += admitted
        return multiple(*admitted)

    @rule(target=deliveries, many=st.integers(1, 3))
    def reclaim(self, many):
        reclaimed = self.pool.admit_waiting_alone([entry(2) for _ in range(many)])
        self.alive += reclaimed
        return multiple(*reclaimed)

    @rule(one=deliveries)
    def start(self, one):
        if one.state is State.LEASED:
            one.task = Task()
            one.advance(Event.START)

    @rule(one=deliveries, reason=st.sampled_from([LeaseStatus.RUN_ENDED, LeaseStatus.STALE, LeaseStatus.GONE]))
    def lose(self, one, reason):
        before = one.state
        self.pool.stop(one.lease, reason)
        assert one.key not in self.leases.until
        assert one.state is (State.STOPPING if before in HANDLED else before)
        if one.state is State.STOPPING:
            assert one.task.cancellations == 1

    @rule(one=deliveries)
    def commit(self, one):
        if one.state in {State.RUNNING, State.STOPPING}:
            one.advance(Event.COMMIT)

    @rule(one=deliveries)
    def settle(self, one):
        if one.state is State.COMMITTING:
            self.pool.settle([(one, Outcome.DONE)])

    @rule(one=deliveries)
    def settle_too_early(self, one):
        if one.state not in {State.COMMITTING, State.RETURNING}:
            with pytest.raises(IllegalTransitionError):
                self.pool.settle([(one, Outcome.DONE)])

    @rule(one=consumes(deliveries))
    def abandon(self, one):
        if one.state is not State.ENDED:
            self.pool.abandon([one])

    @rule(one=deliveries)
    def withdraw(self, one):
        if one.state is State.WAITING_ALONE:
            self.pool.withdraw([one])

    @precondition(lambda self: self.alive)
    @rule()
    def abandon_all(self):
        self.pool.abandon_all()
        assert len(self.pool) == 0

    @invariant()
    def books_are_right(self):
        alive = [one for one in self.alive if one.state is not State.ENDED]
        assert len(self.pool) == len(alive)
        assert all(one.key in self.pool for one in alive)
        assert self.pool.free() == self.SIZE - sum(one.takes_slot for one in alive)
        assert set(self.leases.until) <= {one.key for one in alive}


Pool.TestCase.settings = hypothesis_settings(max_examples=100, stateful_step_count=30, deadline=None)
TestPool = Pool.TestCase


async def test_reclaimed_deliveries_have_the_pool_to_themselves():
    leases = Leases()
    pool = DeliveryPool(judge(), KEYS, 2, cast("LeaseRenewer", leases))
    (ordinary,) = pool.admit([entry()])
    suspects = pool.admit_waiting_alone([entry(2), entry(2)])
    assert [leases.until[one.key] for one in suspects] == [math.inf] * 2
    order = []

    async def isolated():
        async with pool.isolation(suspects) as ends:
            order.append("alone")
            assert [one.state for one in suspects] == [State.LEASED] * 2
            assert all(leases.until[one.key] < math.inf for one in suspects)
            await asyncio.wait(ends)

    async def another():
        await pool.capacity()
        order.append("another")

    async with asyncio.TaskGroup() as group:
        group.create_task(isolated())
        await asyncio.sleep(0)
        assert pool.free() == 0
        group.create_task(another())
        await asyncio.sleep(0)
        assert order == []
        pool.abandon([ordinary])
        for _ in range(3):
            await asyncio.sleep(0)
        assert order == ["alone"]
        pool.abandon(suspects)
    assert order == ["alone", "another"]
    assert pool.free() == 2


async def test_a_wait_for_isolation_that_is_cancelled_holds_up_nothing():
    pool = DeliveryPool(judge(), KEYS, 2, cast("LeaseRenewer", Leases()))
    pool.admit([entry()])
    suspects = pool.admit_waiting_alone([entry(2)])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), pool.isolation(suspects):
            raise AssertionError("another delivery still runs")
    assert (pool.free(), Counter(one.state for one in suspects)) == (1, Counter({State.WAITING_ALONE: 1}))
