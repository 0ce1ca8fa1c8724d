"""The retry policy as arithmetic."""

import pytest

from octollm.steps.retry import GiveUp, RetryLater, after_failure, park
from octollm.topology import Retry

POLICY = Retry(max_failures=5, base_ms=100, cap_ms=500)


@pytest.mark.parametrize(("failures", "ceiling"), [(1, 100), (2, 200), (3, 400), (4, 500)])
def test_pauses_double_up_to_the_cap_with_full_jitter(failures, ceiling):
    assert after_failure(POLICY, failures, 0.0) == RetryLater(0)
    assert after_failure(POLICY, failures, 0.5) == RetryLater(ceiling // 2)


def test_the_last_failure_is_given_up_on():
    assert after_failure(POLICY, 5, 0.5) == GiveUp(5)
    assert after_failure(POLICY, 10_000, 0.5) == GiveUp(10_000)


def test_a_huge_number_of_failures_is_no_huge_number():
    many = Retry(max_failures=10_000, base_ms=1000, cap_ms=60_000)
    assert after_failure(many, 9_999, 0.999) == RetryLater(59_940)


@pytest.mark.parametrize(
    ("asked_s", "least_ms"), [(30, 30_000), (0.5, 500), (-5, 0), (10**12, 86_400_000), (float("nan"), 0)]
)
def test_what_was_asked_for_comes_before_the_policys_pause(asked_s, least_ms):
    assert after_failure(POLICY, 1, 0.0, asked_s) == RetryLater(least_ms)
    assert after_failure(POLICY, 1, 0.5, asked_s) == RetryLater(least_ms + 50)
    assert after_failure(POLICY, 5, 0.5, asked_s) == GiveUp(5)


def test_who_needs_a_person_is_looked_at_rarer_and_rarer_and_in_the_end_given_up_on():
    assert [park(looks, 0, 0.0) for looks in range(6)] == [
        RetryLater(ms) for ms in (30_000, 60_000, 120_000, 240_000, 450_000, 450_000)
    ]
    assert park(0, 2, 1.0) == RetryLater(60_000)  # what failed before was no look
    assert park(99, 0, 0.0) == RetryLater(450_000)
    assert park(100, 0, 0.0) == GiveUp(0)
    assert park(100, 5, 0.0) == GiveUp(5)
