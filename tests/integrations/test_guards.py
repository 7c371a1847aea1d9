"""What an adapter judges errors by: its own table, or the guard's, or the client's."""

from __future__ import annotations

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerRegistry
from breaker_store.bots import BotFleet, UserBotCredentials
from breaker_store.failures import AIOGRAM, HTTPX, KNOWN_CLIENTS, Category
from breaker_store.integrations.guards import choose_guard, choose_table

CHOSEN = HTTPX | {404: Category.UNKNOWN}


def test_a_breaker_of_nobodys_choice_is_judged_by_the_clients_table() -> None:
    assert choose_table(None, CircuitBreaker(), AIOGRAM) is AIOGRAM


def test_what_was_chosen_for_the_registry_comes_before_the_clients_table() -> None:
    breaker = CircuitBreakerRegistry(failures=CHOSEN).get_breaker(101)
    assert choose_table(None, breaker, AIOGRAM) is CHOSEN
    assert choose_table(None, breaker.with_durability("committed"), AIOGRAM) is CHOSEN


def test_what_was_said_to_the_adapter_comes_first() -> None:
    assert choose_table(HTTPX, CircuitBreakerRegistry(failures=CHOSEN).get_breaker(101), AIOGRAM) is HTTPX


@pytest.mark.parametrize("chosen", [KNOWN_CLIENTS, CHOSEN])
def test_a_bots_instance_has_the_table_of_its_fleet(chosen: object) -> None:
    fleet = BotFleet(CircuitBreakerRegistry(), failures=chosen)  # type: ignore[arg-type]
    assert choose_table(None, fleet.get_instance(UserBotCredentials(101, "token")), AIOGRAM) is chosen


def test_one_guard_is_for_all_requests_and_guard_of_tells_each_ones() -> None:
    one, other = CircuitBreaker(), CircuitBreaker()
    assert choose_guard(one, None)("any request") is one
    assert choose_guard(None, {"a": one, "b": other}.__getitem__)("b") is other


@pytest.mark.parametrize("guard_of", [None, lambda _request: CircuitBreaker()])
def test_neither_or_both_is_refused(guard_of: object) -> None:
    guard = None if guard_of is None else CircuitBreaker()
    with pytest.raises(TypeError, match="either one guard"):
        choose_guard(guard, guard_of)  # type: ignore[arg-type]
