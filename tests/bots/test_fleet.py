"""The bots of a process."""

from __future__ import annotations

import pytest

from breaker_store import CircuitBreakerRegistry
from breaker_store.bots import BotFleet, UserBotCredentials
from tests.bots.world import TOKEN


def test_a_user_has_one_bot_as_long_as_its_credentials_stay() -> None:
    fleet = BotFleet(CircuitBreakerRegistry())
    bot = fleet.get_instance(UserBotCredentials(101, TOKEN))
    assert fleet.get_instance(UserBotCredentials(101, TOKEN)) is bot
    assert (fleet.find_instance(101), fleet.find_instance(102), len(fleet), list(fleet)) == (
        bot,
        None,
        1,
        [bot],
    )


def test_a_new_token_makes_a_new_bot_with_the_same_breaker() -> None:
    fleet = BotFleet(CircuitBreakerRegistry())
    bot = fleet.get_instance(UserBotCredentials(101, TOKEN))
    renewed = fleet.get_instance(UserBotCredentials(101, "another"))
    assert renewed is not bot
    assert renewed.breaker is bot.breaker
    assert renewed.credentials.reveal_token() == "another"


def test_a_removed_bot_is_forgotten_and_its_breaker_stays() -> None:
    registry = CircuitBreakerRegistry()
    fleet = BotFleet(registry)
    fleet.get_instance(UserBotCredentials(101, TOKEN)).breaker.force_open()
    fleet.remove_instance(101)
    fleet.remove_instance(101)
    assert (len(fleet), registry.get_open_breakers()) == (0, [101])


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_common_rate_that_makes_no_sense_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="over 0"):
        BotFleet(CircuitBreakerRegistry(), requests_per_second=rate)
