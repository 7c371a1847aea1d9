"""How many retries a fleet has: a share of its calls, and a few a second."""

from __future__ import annotations

import pytest

from breaker_store.bots import RetryBudget
from breaker_store.bots.budget import Taken
from breaker_store.runtime.clock import ManualClock


def spend_all(budget: RetryBudget) -> int:
    spent = 0
    while budget.spend(Taken()):
        spent += 1
    return spent


def test_a_new_budget_has_two_seconds_worth_and_no_more() -> None:
    assert spend_all(RetryBudget(ManualClock().monotonic_ns, per_second=5)) == 10


def test_each_call_earns_its_share_of_a_retry() -> None:
    budget = RetryBudget(ManualClock().monotonic_ns, share=0.25, per_second=0)
    spend_all(budget)
    for _ in range(40):
        budget.earn()
    assert spend_all(budget) == 10


def test_each_second_brings_some() -> None:
    clock = ManualClock()
    budget = RetryBudget(clock.monotonic_ns, per_second=5)
    spend_all(budget)
    clock.advance(3)
    assert spend_all(budget) == 15


def test_no_more_are_saved_up_than_may_be() -> None:
    clock = ManualClock()
    budget = RetryBudget(clock.monotonic_ns, share=1, per_second=5, most=20)
    clock.advance(3_600)
    for _ in range(1_000):
        budget.earn()
    assert spend_all(budget) == 20


def test_a_budget_of_nothing_allows_nothing() -> None:
    clock = ManualClock()
    budget = RetryBudget(clock.monotonic_ns, share=0, per_second=0)
    clock.advance(3_600)
    budget.earn()
    assert spend_all(budget) == 0


@pytest.mark.parametrize("settings", [{"share": -0.1}, {"share": 1.1}, {"per_second": -1}, {"most": 0}])
def test_a_budget_that_makes_no_sense_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a budget has"):
        RetryBudget(ManualClock().monotonic_ns, **settings)
