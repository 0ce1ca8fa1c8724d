"""When the circuit breaker opens, what it permits afterwards, and what closes it."""

import asyncio

import pytest

from octollm.consumer.circuit_breaker import CircuitBreaker, CircuitBreakerRule


def breaker(tasks=3, tenants=1, cooldown_s=600.0) -> CircuitBreaker:
    return CircuitBreaker(CircuitBreakerRule(tasks, tenants, cooldown_s), "arm.test")


def opened(**rule) -> CircuitBreaker:
    one = breaker(**rule)
    assert [one.record_failure(f"t{number}", b"a") for number in range(3)] == [False, False, True]
    assert one.tripped
    return one


def test_failures_on_several_tasks_in_a_row_open_it():
    one = breaker()
    assert [one.record_failure("t1", b"a") for _ in range(5)] == [False] * 5
    assert not one.record_failure("t2", b"a")
    one.record_success(b"a")
    assert not one.record_failure("t3", b"a")
    one.record_inconclusive()
    assert not one.record_failure("t4", b"a")
    assert one.record_failure("t5", b"a")
    assert one.tripped


def test_a_rule_of_zero_tasks_never_opens_it():
    one = breaker(tasks=0)
    assert not any(one.record_failure(f"t{number}", b"a") for number in range(50))


def test_one_tenant_alone_opens_it_only_where_there_is_one():
    one = breaker(tenants=2)
    assert not any(one.record_failure(f"t{number}", b"a") for number in range(50))
    assert one.record_failure("t50", b"b")


def test_a_tenant_that_was_seen_counts_like_a_declared_one():
    one = breaker(tenants=1)
    one.record_success(b"b")
    assert not any(one.record_failure(f"t{number}", b"a") for number in range(50))
    assert one.record_failure("t50", b"b")


def test_while_it_is_open_nothing_begins_and_failures_are_given_back():
    one = opened()
    assert not one.try_acquire()
    assert one.record_failure("t9", b"a")


def test_a_success_of_an_earlier_message_closes_it():
    one = opened()
    one.record_success(b"a")
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
    one.record_success(b"a")
    assert await one.permits(8) == 8


async def test_a_failed_trial_opens_it_again_and_is_not_given_back():
    one = opened(cooldown_s=0)
    assert await one.permits(8) == 1
    assert one.try_acquire()
    assert not one.record_failure("t7", b"a")
    assert not one.try_acquire()
    assert await one.permits(8) == 1  # the next trial


async def test_during_the_cooldown_nothing_is_permitted():
    one = opened()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.permits(8), 0.05)
