"""When the fuse blows, what it lets through afterwards, and what puts it in again."""

import asyncio

import pytest

from octollm.consumer.circuit_breaker import CircuitBreaker, CircuitBreakerRule


def fuse(tasks=3, tenants=1, cooldown_s=600.0) -> CircuitBreaker:
    return CircuitBreaker(CircuitBreakerRule(tasks, tenants, cooldown_s), "arm.test")


def blown(**rule) -> CircuitBreaker:
    one = fuse(**rule)
    assert [one.broke(f"t{number}", b"a") for number in range(3)] == [False, False, True]
    assert one.out
    return one


def test_it_takes_different_tasks_in_a_row():
    one = fuse()
    assert [one.broke("t1", b"a") for _ in range(5)] == [False] * 5
    assert not one.broke("t2", b"a")
    one.well(b"a")
    assert not one.broke("t3", b"a")
    one.undecided()
    assert not one.broke("t4", b"a")
    assert one.broke("t5", b"a")
    assert one.out


def test_nought_switches_it_off():
    one = fuse(tasks=0)
    assert not any(one.broke(f"t{number}", b"a") for number in range(50))


def test_one_tenant_alone_blows_it_only_where_there_is_one():
    one = fuse(tenants=2)
    assert not any(one.broke(f"t{number}", b"a") for number in range(50))
    assert one.broke("t50", b"b")


def test_a_tenant_that_was_met_counts_as_much_as_one_that_was_declared():
    one = fuse(tenants=1)
    one.well(b"b")
    assert not any(one.broke(f"t{number}", b"a") for number in range(50))
    assert one.broke("t50", b"b")


def test_while_it_is_out_nothing_begins_and_what_breaks_is_given_back():
    one = blown()
    assert not one.begin()
    assert one.broke("t9", b"a")


def test_what_had_been_begun_before_and_goes_well_puts_it_in_again():
    one = blown()
    one.well(b"a")
    assert not one.out
    assert one.begin()


async def test_after_the_cooldown_one_message_is_tried():
    one = blown(cooldown_s=0)
    assert await one.room(8) == 1
    assert one.begin()
    assert not one.begin()
    waits = asyncio.ensure_future(one.room(8))
    await asyncio.sleep(0)
    assert not waits.done()
    one.undecided()  # it said nothing: another one
    assert await waits == 1
    assert one.begin()
    one.well(b"a")
    assert await one.room(8) == 8


async def test_a_try_that_breaks_blows_it_again_and_is_not_given_back():
    one = blown(cooldown_s=0)
    assert await one.room(8) == 1
    assert one.begin()
    assert not one.broke("t7", b"a")
    assert not one.begin()
    assert await one.room(8) == 1  # the next try


async def test_during_the_cooldown_it_waits():
    one = blown()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.room(8), 0.05)
