"""How long a failed call waits."""

from __future__ import annotations

import pytest

from faas.models import Reason
from faas.retry_policy import MAX_RETRIES, RETRYABLE_REASONS, Backoff, RetryPolicy


def test_delays_double_up_to_the_longest() -> None:
    policy = RetryPolicy(max_retries=5, delay_s=2, max_delay_s=10, jitter=0)
    assert [policy.delay_after(retries, 0.5) for retries in range(5)] == [2, 4, 8, 10, 10]


def test_a_fixed_delay_stays() -> None:
    policy = RetryPolicy(max_retries=5, backoff=Backoff.FIXED, delay_s=2, jitter=0)
    assert {policy.delay_after(retries, 0.5) for retries in range(5)} == {2}


@pytest.mark.parametrize(("jitter", "shortest_s"), [(0.0, 8.0), (0.25, 6.0), (1.0, 0.0)])
def test_jitter_takes_up_to_its_share_off_a_delay(jitter: float, shortest_s: float) -> None:
    policy = RetryPolicy(max_retries=1, delay_s=8, jitter=jitter)
    assert policy.delay_after(0, 0.0) == 8
    assert policy.delay_after(0, 1.0) == shortest_s


def test_the_last_of_the_most_retries_has_a_delay_too() -> None:
    policy = RetryPolicy(max_retries=MAX_RETRIES, delay_s=1, max_delay_s=60, jitter=0)
    assert policy.delay_after(MAX_RETRIES - 1, 0.0) == 60


def test_it_is_the_same_after_a_way_through_json() -> None:
    policy = RetryPolicy(max_retries=3, backoff=Backoff.FIXED, delay_s=0.5, on=("timeout", 502))
    assert RetryPolicy.from_json(policy.to_json()) == policy


def test_what_the_caller_did_is_no_reason_to_retry_and_the_others_are_reasons_of_calls() -> None:
    assert set(RETRYABLE_REASONS) <= set(Reason) - {Reason.CLIENT_REQUEST}
