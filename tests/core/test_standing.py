"""How a breaker stands: its version as a text, and the sentence."""

from __future__ import annotations

import pytest

from breaker_store.core.policy import Policy
from breaker_store.core.standing import StateVersion, describe_policy, describe_standing
from tests.core.scenario import Scenario, transition_in

USER = 7


def sentence(breaker: Scenario) -> str:
    state = breaker.state
    remaining_us = None if state.retry_at is None else state.remaining_us(breaker.now)
    opening = transition_in(breaker.last) if state.forced and breaker.last else None
    return describe_standing(USER, state, remaining_us, opening)


@pytest.mark.parametrize(
    "version", [StateVersion(0, 0), StateVersion(17, -1), StateVersion(2**31 - 1, -(2**31))]
)
def test_a_version_is_read_as_it_is_written(version: StateVersion) -> None:
    assert StateVersion.read(str(version)) == version


@pytest.mark.parametrize(
    "text", ["", "17", "17-", "-1-00000000", "017-00000000", "17-0000000G", "17-000000001", "2147483648-00000000", "\N{ARABIC-INDIC DIGIT ONE}-00000000", "17-00000000\n"]
)  # fmt: skip
def test_any_other_text_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="written as in"):
        StateVersion.read(text)


def test_every_transition_makes_another_version_and_an_outcome_none() -> None:
    breaker = Scenario()
    seen = [StateVersion.of(breaker.state)]
    breaker.fail()
    assert StateVersion.of(breaker.state) == seen[0]
    for act in (breaker.reset, lambda: breaker.change_policy(Policy()), breaker.force_open, breaker.release):
        act()
        seen.append(StateVersion.of(breaker.state))
    assert len(set(seen)) == 5


def test_closed_it_tells_what_it_counts() -> None:
    assert sentence(Scenario()) == "User 7's breaker is closed."
    assert sentence(Scenario().fail().fail()) == (
        "User 7's breaker is closed: it has seen 2 failures in a row, and opens after 5."
    )


def test_open_or_half_open_it_tells_what_becomes_of_the_next_call() -> None:
    breaker = Scenario().opened()
    assert sentence(breaker) == "User 7's breaker is open: it refuses calls for another 1 min."
    assert sentence(breaker.wait(60)) == (
        "User 7's breaker is open: it lets the next call try, since its wait is over."
    )
    breaker.succeed()
    assert sentence(breaker) == "User 7's breaker is half-open, with 1 of 2 probes succeeded."


def test_forced_open_it_tells_by_whom_until_when_and_why() -> None:
    assert sentence(Scenario().force_open(600, "alice", "the provider\nis down")) == (
        'User 7\'s breaker is forced open by alice until 2023-11-14 22:23:20 UTC: "the provider\\nis down".'
    )
    assert sentence(Scenario().force_open()) == "User 7's breaker is forced open until somebody releases it."
    assert sentence(Scenario().force_open(600, "alice").wait(600)) == (
        "User 7's breaker was forced open by alice until 2023-11-14 22:23:20 UTC; "
        "it lets the next call try, since its wait is over."
    )


def test_suspended_it_tells_by_whom_since_when_and_why() -> None:
    assert sentence(Scenario().suspend("alice", "unpaid\nbill")) == (
        "User 7's bot is suspended by alice since 2023-11-14 22:13:20 UTC, until somebody resumes it: "
        '"unpaid\\nbill".'
    )
    assert sentence(Scenario().suspend()) == (
        "User 7's bot is suspended since 2023-11-14 22:13:20 UTC, until somebody resumes it."
    )


def test_a_policy_is_told_with_whose_it_is_and_what_counts() -> None:
    assert describe_policy(USER, Policy(), is_own=False) == (
        "User 7 has the default policy: their breaker opens after 5 failures in a row, waits 60 s, "
        "and closes after 2 successes."
    )
    own = Policy(1, 2.5, 1, 3, ("TimeoutError", "OSError"), ("KeyError",))
    assert describe_policy(USER, own, is_own=True) == (
        "User 7 has a policy of their own: their breaker opens after 1 failure in a row, waits 2.5 s, and closes after "
        "1 success; 3 probes may run at once; only TimeoutError, OSError counts as a failure; KeyError does not count."
    )
