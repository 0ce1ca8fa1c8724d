"""The life of a delivery: one whole table of transitions, shown in the docs, and a pool whose books stay right."""

import asyncio
import math
import re
from itertools import count, product
from typing import Any, cast

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from octollm.consumer import pool as pool_module
from octollm.consumer.delivery import HANDLED, TRANSITIONS, Delivery, Event, IllegalTransitionError, State
from octollm.consumer.leases import LeaseRenewer
from octollm.consumer.pool import DeliveryPool
from octollm.protocol.handoff import ClaimLimits, Entry, LeaseStatus
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
        limits = self.pool.claim_limits()
        reclaimed = self.pool.admit([entry(2) for _ in range(min(many, limits.started))])
        self.alive += reclaimed
        return multiple(*reclaimed)

    @rule(target=deliveries)
    def reclaim_suspect(self):
        if not self.pool.claim_limits().suspects:
            return multiple()
        suspect = self.pool.admit_suspect(entry(3))
        self.alive.append(suspect)
        return suspect

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
    def give_back(self, one):
        if one.state in {State.LEASED, State.WAITING_ALONE, State.RUNNING}:
            one.advance(Event.RETURN)

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
        reclaimed = sum(one.entry.delivery == 2 for one in alive)
        assert reclaimed <= self.SIZE // 2
        limits = self.pool.claim_limits()
        assert (limits.started, limits.last) == (min(self.pool.free(), self.SIZE // 2 - reclaimed), reclaimed == 0)
        assert sum(one.suspect for one in alive) <= 1
        assert set(self.leases.until) <= {one.key for one in alive}


Pool.TestCase.settings = hypothesis_settings(max_examples=100, stateful_step_count=30, deadline=None)
TestPool = Pool.TestCase


def a_pool(size=2, **changes):
    leases = Leases()
    return DeliveryPool(judge(**changes), KEYS, size, cast("LeaseRenewer", leases)), leases


async def settled():
    """Let every task do what it can do now."""
    for _ in range(9):
        await asyncio.sleep(0)


async def test_a_suspect_has_the_pool_to_itself(monkeypatch):
    monkeypatch.setattr(pool_module, "ISOLATION_S", 600)
    pool, leases = a_pool()
    (ordinary,) = pool.admit([entry()])
    suspect = pool.admit_suspect(entry(3))
    assert leases.until[suspect.key] == math.inf
    order = []

    async def isolated():
        async with pool.isolation(suspect):
            order.append("alone")
            assert suspect.state is State.LEASED
            assert leases.until[suspect.key] < math.inf
            await pool.until_ended_or_joined(suspect)

    async def another():
        await pool.capacity()
        order.append("another")

    async with asyncio.TaskGroup() as group:
        group.create_task(isolated())
        await settled()
        assert (pool.free(), pool.claim_limits()) == (0, ClaimLimits(0, 0, 0, last=True))
        group.create_task(another())
        await settled()
        assert order == []
        pool.abandon([ordinary])
        await settled()
        assert order == ["alone"]
        pool.abandon([suspect])
    assert order == ["alone", "another"]
    assert pool.free() == 2


@pytest.mark.parametrize(("delivery_count", "bounded"), [(3, True), (4, True), (5, False)])
async def test_only_before_its_last_delivery_a_suspect_waits_without_a_bound(monkeypatch, delivery_count, bounded):
    monkeypatch.setattr(pool_module, "ISOLATION_S", 0.01)
    pool, _ = a_pool(max_deliveries=5)
    (ordinary,) = pool.admit([entry()])
    suspect = pool.admit_suspect(entry(delivery_count))
    began, joined = asyncio.Event(), asyncio.Event()

    async def isolated():
        async with pool.isolation(suspect):
            began.set()
            await pool.until_ended_or_joined(suspect)
        joined.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(isolated())
        if bounded:
            await began.wait()  # next to what does not end
            await joined.wait()  # and the others begin next to it
            assert (pool.free(), suspect.state) == (0, State.LEASED)
        else:
            await asyncio.sleep(0.05)
            assert not began.is_set()
            pool.abandon([ordinary])
            await began.wait()
            await asyncio.sleep(0.05)
            assert (pool.free(), joined.is_set()) == (0, False)
        pool.abandon([suspect])


async def test_a_suspect_waits_for_a_slot_where_all_are_taken(monkeypatch):
    monkeypatch.setattr(pool_module, "ISOLATION_S", 0.01)
    pool, _ = a_pool()
    running = pool.admit([entry(), entry()])
    suspect = pool.admit_suspect(entry(3))

    async def isolated():
        async with pool.isolation(suspect):
            await pool.until_ended_or_joined(suspect)

    task = asyncio.create_task(isolated())
    await asyncio.sleep(0.05)
    assert suspect.state is State.WAITING_ALONE
    pool.abandon(running[:1])
    await task
    assert (pool.free(), suspect.state) == (0, State.LEASED)


async def test_an_isolation_is_followed_by_a_pause_four_times_as_long(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(pool_module, "monotonic", lambda: now)
    pool, _ = a_pool(lease_s=30)
    suspect = pool.admit_suspect(entry(3))
    async with pool.isolation(suspect):
        now += 2
        pool.abandon([suspect])
    for passed, allowed in ((0, 0), (7.9, 0), (8, 1)):
        now = 1002.0 + passed
        assert pool.claim_limits().suspects == allowed


async def test_a_wait_for_isolation_that_is_cancelled_holds_up_nothing():
    pool, _ = a_pool()
    pool.admit([entry()])
    suspect = pool.admit_suspect(entry(3))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), pool.isolation(suspect):
            raise AssertionError("another delivery still runs")
    assert (pool.free(), suspect.state) == (1, State.WAITING_ALONE)
