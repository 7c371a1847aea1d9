from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from breaker_store.core.events import EventId, Failure
from breaker_store.errors import (
    BotSuspendedError,
    BreakerStoreError,
    CircuitBreakerOpenError,
    ConfigurationError,
    LedgerError,
    StoreError,
    UnknownBreakerError,
)

OPENED_BY = EventId(7, 12)
LAST_FAILURE = Failure(EventId(7, 11), 1_700_000_000_000_000, "TimeoutError", "no answer")


def refusal(**changes: object) -> CircuitBreakerOpenError:
    facts = {
        "user_id": 101,
        "timeout_remaining": 12.34,
        "open_since": 1_700_000_000.5,
        "opened_by": OPENED_BY,
        "last_failure": LAST_FAILURE,
    }
    return CircuitBreakerOpenError(**(facts | changes))


def pickled_and_back(error: BreakerStoreError) -> BreakerStoreError:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes


def test_a_refusal_carries_its_facts() -> None:
    error = refusal()
    assert (error.user_id, error.timeout_remaining, error.open_since) == (101, 12.34, 1_700_000_000.5)
    assert (error.opened_by, error.last_failure) == (OPENED_BY, LAST_FAILURE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            "circuit breaker of user 101 is open for another 12.3 s; opened by event 7-12; last failure: TimeoutError: no answer",
        ),
        (
            {"timeout_remaining": 0.0, "last_failure": None},
            "circuit breaker of user 101 is open for others while a probe is running; opened by event 7-12",
        ),
        (
            {"timeout_remaining": None, "last_failure": None},
            "circuit breaker of user 101 is open until it is released; opened by event 7-12",
        ),
        (
            {"user_id": None, "opened_by": None},
            "circuit breaker is open for another 12.3 s; last failure: TimeoutError: no answer",
        ),
        ({"user_id": 0, "opened_by": None, "last_failure": None}, "circuit breaker of user 0 is open for another 12.3 s"),
    ],
)  # fmt: skip
def test_a_refusal_says_whose_breaker_is_open_how_long_and_why(
    changes: dict[str, object], message: str
) -> None:
    assert str(refusal(**changes)) == message


def test_the_refusal_of_a_suspended_bot_gives_the_reason() -> None:
    error = BotSuspendedError(101, 1_700_000_000.5, OPENED_BY, "ann", "unpaid bill")
    assert isinstance(error, CircuitBreakerOpenError)
    assert (error.actor, error.reason, error.suspended_since) == ("ann", "unpaid bill", 1_700_000_000.5)
    assert (error.timeout_remaining, error.open_since, error.opened_by) == (None, 1_700_000_000.5, OPENED_BY)
    assert str(error) == "user 101's bot is suspended by ann: unpaid bill"
    assert str(BotSuspendedError(None, None, None, None, None)) == "the bot is suspended"


def test_a_failure_of_which_nothing_is_known_is_still_named() -> None:
    unknown = Failure(EventId(7, 11), 1_700_000_000_000_000)
    assert str(refusal(last_failure=unknown)).endswith("last failure: failure")


@pytest.mark.parametrize("again", [pickled_and_back, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "error",
    [
        refusal(),
        refusal(timeout_remaining=None),
        BotSuspendedError(101, 1_700_000_000.5, OPENED_BY, "ann", "unpaid bill"),
        UnknownBreakerError(101),
    ],
)
def test_an_error_keeps_its_facts_and_its_message_when_it_is_pickled_or_copied(
    error: BreakerStoreError, again: Callable[[BreakerStoreError], BreakerStoreError]
) -> None:
    """A process pool hands its workers' errors on by pickle."""
    made = again(error)
    assert type(made) is type(error)
    assert (str(made), vars(made)) == (str(error), vars(error))


def test_an_unknown_breaker_says_of_which_user() -> None:
    error = UnknownBreakerError(101)
    assert error.user_id == 101
    assert "user 101" in str(error)


@pytest.mark.parametrize(
    ("error", "branch"),
    [
        (CircuitBreakerOpenError, BreakerStoreError),
        (ConfigurationError, BreakerStoreError),
        (StoreError, BreakerStoreError),
        (LedgerError, StoreError),
        (UnknownBreakerError, StoreError),
    ],
)
def test_an_error_is_caught_by_what_its_caller_can_do(
    error: type[BreakerStoreError], branch: type[BreakerStoreError]
) -> None:
    assert issubclass(error, branch)
    assert not (branch is BreakerStoreError and issubclass(error, StoreError) and error is not StoreError)
