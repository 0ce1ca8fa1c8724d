"""When the circuit breaker opens, what it permits afterwards, and what closes it."""

import asyncio

import pytest

from octollm.consumer.circuit_breaker import CircuitBreaker, CircuitBreakerRule, Source


def breaker(tasks=3, tenants=1, cooldown_s=600.0) -> CircuitBreaker:
    return CircuitBreaker(CircuitBreakerRule(tasks, tenants, cooldown_s), "arm.test")


def about(task: str, tenant: str = "a", step: str = "check") -> Source:
    return Source(task.encode(), tenant.encode(), step.encode())


def opened(**rule) -> CircuitBreaker:
    one = breaker(**rule)
    assert [one.record_failure(about(f"t{number}", "a")) for number in range(3)] == [False, False, True]
    assert one.tripped
    return one


def test_failures_on_several_tasks_in_a_row_open_it():
    one = breaker()
    assert [one.record_failure(about("t1", "a")) for _ in range(5)] == [False] * 5
    assert not one.record_failure(about("t2", "a"))
    one.record_success(about("t0", "a"))
    assert not one.record_failure(about("t3", "a"))
    one.record_inconclusive()
    assert not one.record_failure(about("t4", "a"))
    assert one.record_failure(about("t5", "a"))
    assert one.tripped


def test_a_rule_of_zero_tasks_never_opens_it():
    one = breaker(tasks=0)
    assert not any(one.record_failure(about(f"t{number}", "a")) for number in range(50))


def test_one_tenant_alone_opens_it_only_where_there_is_one():
    one = breaker(tenants=2)
    assert not any(one.record_failure(about(f"t{number}", "a")) for number in range(50))
    assert one.record_failure(about("t50", "b"))


def test_a_tenant_that_was_seen_counts_like_a_declared_one():
    one = breaker(tenants=1)
    one.record_success(about("t0", "b"))
    assert not any(one.record_failure(about(f"t{number}", "a")) for number in range(50))
    assert one.record_failure(about("t50", "b"))


def test_while_it_is_open_nothing_begins_and_failures_are_given_back():
    one = opened()
    assert not one.try_acquire()
    assert one.record_failure(about("t9", "a"))


def test_a_success_of_an_earlier_message_closes_it():
    one = opened()
    one.record_success(about("t0", "a"))
    assert not one.tripped
    assert one.try_acquire()


async def test_after_the_cooldown_one_trial_message_begins():
    one = opened(cooldown_s=0)
    assert await one.permits(8) == 1
    assert one.try_acquire()
    assert not one.try_acquire()
    waits = asyncio.ensure_future(one.permits(8))
    await asyncio.sleep(0)
    assert not waits.done()
    one.record_inconclusive()  # it said nothing: another trial may begin
    assert await waits == 1
    assert one.try_acquire()
    one.record_success(about("t0", "a"))
    assert await one.permits(8) == 8


async def test_a_failed_trial_is_not_given_back_and_others_are_tried_at_once():
    one = opened(cooldown_s=0)
    for number in range(5):
        assert await one.permits(8) == 1
        assert one.try_acquire()
        assert not one.record_failure(about(f"poison{number}"))
    assert await one.permits(8) == 1
    assert one.try_acquire()
    one.record_success(about("good"))
    assert await one.permits(8) == 8


async def test_only_several_failed_trials_open_it_again_and_then_for_twice_as_long(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("octollm.consumer.circuit_breaker.time.monotonic", lambda: clock[0])
    one = opened(cooldown_s=80)
    lengths = []
    for _ in range(5):
        before = clock[0]
        while not one.try_acquire():  # what `permits` does once the cool-down is over
            clock[0] += 1
            if clock[0] >= one._open_until:
                assert await one.permits(8) == 1
        lengths.append(round(clock[0] - before))
        for trial in range(3):
            assert not one.record_failure(about(f"poison{trial}"))
            assert one.try_acquire() == (trial < 2)
    assert lengths == [10, 20, 40, 80, 80]


def test_one_step_alone_opens_it_only_where_no_other_was_seen():
    one = breaker()
    one.record_success(about("t0", step="note"))
    assert not any(one.record_failure(about(f"t{number}", step="report")) for number in range(50))
    assert one.record_failure(about("t50", step="note"))


async def test_during_the_cooldown_nothing_is_permitted():
    one = opened()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.permits(8), 0.05)
