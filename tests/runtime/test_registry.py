"""The breakers of a process, one a user."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest

from breaker_store import (
    CircuitBreaker,
    CircuitBreakerRegistry,
    Policy,
    get_circuit_breaker_registry,
)
from breaker_store.core.events import Kind
from breaker_store.core.state import BreakerState
from breaker_store.runtime.clock import ManualClock
from tests.runtime.driving import Recording, begin, fail_times, half_open, succeed, trip


@pytest.mark.parametrize("user_id", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_a_breaker_is_made_when_first_asked_for_and_the_same_from_then_on(
    registry: CircuitBreakerRegistry, user_id: int
) -> None:
    breaker = registry.get_breaker(user_id)
    assert isinstance(breaker, CircuitBreaker)
    assert breaker.user_id == user_id
    assert registry.get_breaker(user_id) is breaker
    assert registry.find_breaker(user_id) is breaker
    assert (len(registry), list(registry)) == (1, [breaker])


@pytest.mark.parametrize("user_id", ["101", 101.0, True, None, b"101", object()])
def test_an_id_that_is_no_int_is_refused(registry: CircuitBreakerRegistry, user_id: object) -> None:
    with pytest.raises(TypeError, match="a user id is an int, not"):
        registry.get_breaker(user_id)  # type: ignore[arg-type]
    assert len(registry) == 0


@pytest.mark.parametrize("user_id", [1.0, True])
def test_an_id_that_is_no_int_is_refused_though_it_equals_one_that_is_known(
    registry: CircuitBreakerRegistry, user_id: int
) -> None:
    registry.get_breaker(1)
    with pytest.raises(TypeError, match="a user id is an int, not"):
        registry.get_breaker(user_id)


@pytest.mark.parametrize("user_id", [2**63, -(2**63) - 1, 10**30])
def test_an_id_that_does_not_fit_in_signed_64_bits_is_refused(
    registry: CircuitBreakerRegistry, user_id: int
) -> None:
    with pytest.raises(ValueError, match="a user id fits in signed 64 bits"):
        registry.get_breaker(user_id)
    assert len(registry) == 0


def test_asking_for_a_breaker_writes_nothing(recording: Recording) -> None:
    recording.registry.get_breaker(7)
    assert (recording.keeper.woken, len(recording.journal.pending)) == (0, 0)


async def test_breakers_are_listed_by_their_state(
    registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    for user_id in (3, 1, 2, 4, 5):
        registry.get_breaker(user_id)
    probes = [await half_open(registry.get_breaker(user_id), clock) for user_id in (5,)]
    for user_id in (3, 1):
        await trip(registry.get_breaker(user_id))
    assert sorted(registry.get_open_breakers()) == [1, 3]
    assert registry.get_half_open_breakers() == [5]
    states = registry.get_all_states()
    assert {user_id: state["state"] for user_id, state in states.items()} == {
        1: "open",
        2: "closed",
        3: "open",
        4: "closed",
        5: "half_open",
    }
    assert states[3] == registry.get_breaker(3).get_state()
    await probes[0].succeed()


def test_a_registry_without_breakers_lists_none(registry: CircuitBreakerRegistry) -> None:
    assert registry.get_open_breakers() == registry.get_half_open_breakers() == []
    assert registry.get_all_states() == {}


async def test_a_breaker_of_the_registry_is_reset(recording: Recording) -> None:
    await trip(recording.breaker)
    assert recording.registry.reset_breaker(101, actor="ada", reason="mended") is True
    assert recording.registry.get_open_breakers() == []
    reset = recording.events()[-1]
    assert (reset.kind, reset.actor, reset.reason) == (Kind.RESET, "ada", "mended")


def test_a_reset_of_an_unknown_user_creates_nothing(registry: CircuitBreakerRegistry) -> None:
    assert registry.reset_breaker(101) is False
    assert (len(registry), registry.find_breaker(101)) == (0, None)


async def test_the_registrys_numbers_hold_for_each_user() -> None:
    registry = CircuitBreakerRegistry(2, 30.0, 1, clock=ManualClock())
    await fail_times(registry.get_breaker(101), 2)
    state = registry.get_breaker(101).get_state()
    assert (state["state"], state["timeout_remaining"], state["success_threshold"]) == ("open", 30.0, 1)


async def test_a_users_own_policy_differs_from_the_registrys(recording: Recording) -> None:
    registry = recording.registry
    registry.set_policy(101, Policy(failure_threshold=1), actor="ada", reason="fragile")
    await fail_times(registry.get_breaker(101), 1)
    await fail_times(registry.get_breaker(102), 1)
    assert registry.get_open_breakers() == [101]
    changed = recording.events()[0]
    assert (changed.kind, changed.actor, changed.reason) == (Kind.POLICY_CHANGED, "ada", "fragile")


async def test_a_users_own_policy_is_kept_through_openings_and_resets(
    registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    policy = Policy(failure_threshold=1, timeout_seconds=1, success_threshold=1)
    registry.set_policy(101, policy)
    breaker = registry.get_breaker(101)
    await fail_times(breaker, 1)
    clock.advance(1)
    await breaker.call(succeed)
    breaker.reset()
    assert (breaker.state.policy, breaker.state.policy_is_own) == (policy, True)


def test_what_a_store_knows_takes_the_place_of_what_memory_knew(registry: CircuitBreakerRegistry) -> None:
    known = BreakerState(registry.policy, failure_count=3)
    forgotten, kept = registry.get_breaker(1), registry.get_breaker(2)
    forgotten.set_policy(Policy(failure_threshold=1))
    registry.take_over({2: known, 3: known}, {})
    assert forgotten.state == registry.first_state
    assert (kept.state, registry.get_breaker(2)) == (known, kept)
    assert (kept.stored, registry.get_breaker(3).stored) == (True, True)


def test_a_breaker_that_is_asleep_wakes_when_somebody_asks_for_it(registry: CircuitBreakerRegistry) -> None:
    known = BreakerState(registry.policy, version=4)
    woken: list[int] = []

    def wake(user_id: int) -> BreakerState:
        woken.append(user_id)
        return known

    present = registry.get_breaker(1)
    registry.take_over({}, {user_id: partial(wake, user_id) for user_id in (1, 2, 3)})
    assert (present.state, woken, len(registry)) == (known, [1], 3)
    asked = registry.find_breaker(2)
    assert asked is registry.get_breaker(2)
    assert (asked.state, asked.stored, woken) == (known, True, [1, 2])
    assert sorted(registry.get_all_states()) == woken == [1, 2, 3]
    assert registry.find_breaker(4) is None


def test_idle_breakers_share_one_state_also_after_a_store_took_over(registry: CircuitBreakerRegistry) -> None:
    breakers = [registry.get_breaker(user_id) for user_id in range(3)]
    registry.take_over({0: registry.first_state, 1: registry.first_state}, {})
    assert {id(breaker.state) for breaker in breakers} == {id(registry.first_state)}


async def test_what_a_store_does_not_know_is_new_to_it(recording: Recording) -> None:
    """A registry may be opened on another database, or on one that never got the last batch."""
    await recording.breaker.call(succeed)
    assert recording.cut().newcomers
    recording.registry.take_over({}, {})
    await recording.breaker.call(succeed)
    assert recording.cut().newcomers


async def test_transitions_of_an_earlier_store_do_not_wait_for_confirmation(recording: Recording) -> None:
    await trip(recording.breaker)
    assert recording.registry.surroundings.unconfirmed
    recording.registry.take_over({}, {})
    assert recording.registry.surroundings.unconfirmed == {}


async def test_transitions_wait_for_confirmation_only_where_there_is_a_store(
    registry: CircuitBreakerRegistry, recording: Recording
) -> None:
    await trip(registry.get_breaker(101))
    await trip(recording.breaker)
    assert registry.surroundings.unconfirmed == {}
    opened = recording.breaker.state.opened_by
    assert recording.registry.surroundings.unconfirmed == {101: (1, opened.writer_seq, opened.writer_seq)}


async def test_a_call_under_way_when_a_store_takes_over_is_late(registry: CircuitBreakerRegistry) -> None:
    breaker = registry.get_breaker(101)
    await trip(breaker)
    breaker.reset()
    call = await begin(breaker)
    registry.take_over({}, {})
    await call.fail()
    assert breaker.state == registry.first_state


def test_the_shared_registry_is_one_object() -> None:
    assert get_circuit_breaker_registry() is get_circuit_breaker_registry()


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )


def test_the_shared_registry_says_once_that_it_is_in_memory_only() -> None:
    finished = run_script(
        "from breaker_store import get_circuit_breaker_registry as shared\n"
        "import sys; print('asked', file=sys.stderr)\n"
        "shared(); print('got', file=sys.stderr)\n"
        "for user_id in (1, 2, 1): shared().get_breaker(user_id)\n"
    )
    asked, got, *said = finished.stderr.splitlines()
    assert (asked, got, len(said)) == ("asked", "got", 1)
    assert "in memory only: a restart forgets it" in said[0]


def test_the_shared_registry_says_nothing_of_memory_once_it_is_recorded() -> None:
    finished = run_script(
        "from breaker_store import get_circuit_breaker_registry as shared\n"
        "from types import SimpleNamespace\n"
        "shared().surroundings.journal.attach(SimpleNamespace(write_through=None), 9)\n"
        "shared().get_breaker(1)\n"
    )
    assert finished.stderr == ""


def test_a_registry_of_ones_own_does_not_say_that_it_is_in_memory_only(
    caplog: pytest.LogCaptureFixture, registry: CircuitBreakerRegistry
) -> None:
    registry.get_breaker(101)
    assert caplog.records == []
