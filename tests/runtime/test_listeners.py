"""Those who hear of transitions, and that whatever they do changes nothing for the breaker or for each other."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable

import pytest

from breaker_store import CircuitBreakerOpenError, CircuitBreakerRegistry, Kind, Transition
from breaker_store.core.events import CircuitState
from breaker_store.runtime.clock import ManualClock
from breaker_store.runtime.listeners import BACKLOG_LIMIT
from tests.runtime.driving import USER, Heard, begin, recover, succeed, trip

RECOVERY = [Kind.OPENED, Kind.HALF_OPENED, Kind.CLOSED]


async def test_a_listener_hears_of_each_transition_in_order(
    registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    heard = Heard()
    registry.subscribe(heard)
    await recover(registry.get_breaker(USER), clock)
    registry.reset_breaker(USER)
    assert await heard.have(4) == [*RECOVERY, Kind.RESET]
    assert heard.news[0] == (USER, Kind.OPENED)


async def test_an_async_listener_hears_of_them_too(
    registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    heard = Heard()

    async def listen(user_id: int | None, transition: Transition) -> None:
        await asyncio.sleep(0)
        heard(user_id, transition)

    registry.subscribe(listen)
    await recover(registry.get_breaker(USER), clock)
    assert await heard.have(3) == RECOVERY


async def test_a_listener_is_called_after_the_call_that_made_the_transition(
    registry: CircuitBreakerRegistry,
) -> None:
    heard = Heard()
    registry.subscribe(heard)
    registry.get_breaker(USER).reset()
    assert heard.news == []
    assert await heard.have(1) == [Kind.RESET]


async def test_outcomes_that_change_nothing_are_not_told(registry: CircuitBreakerRegistry) -> None:
    heard = Heard()
    registry.subscribe(heard)
    breaker = registry.get_breaker(USER)
    await breaker.call(succeed)
    await trip(breaker)
    with pytest.raises(CircuitBreakerOpenError):
        await breaker.call(succeed)
    breaker.reset()
    assert await heard.have(2) == [Kind.OPENED, Kind.RESET]


async def raise_plainly(_user_id: int | None, _transition: Transition) -> None:
    raise ValueError("a bad listener")


def raise_at_once(_user_id: int | None, _transition: Transition) -> None:
    raise ValueError("a bad listener")


async def never_end(_user_id: int | None, _transition: Transition) -> None:
    await asyncio.get_running_loop().create_future()


async def be_cancelled(_user_id: int | None, _transition: Transition) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("bad", [raise_plainly, raise_at_once, never_end, be_cancelled])
async def test_a_failing_slow_or_cancelled_listener_changes_nothing_for_the_breaker_or_the_others(
    registry: CircuitBreakerRegistry, clock: ManualClock, bad: Callable[[int | None, Transition], object]
) -> None:
    before, after = Heard(), Heard()
    for listener in (before, bad, after):
        registry.subscribe(listener)
    breaker = registry.get_breaker(USER)
    await recover(breaker, clock)
    assert await before.have(3) == await after.have(3) == RECOVERY
    assert breaker.get_state()["state"] == "closed"


@pytest.mark.parametrize("bad", [raise_plainly, raise_at_once])
async def test_a_failing_listener_is_logged_with_its_error(
    registry: CircuitBreakerRegistry,
    caplog: pytest.LogCaptureFixture,
    bad: Callable[[int | None, Transition], object],
) -> None:
    heard = Heard()
    registry.subscribe(bad)
    registry.subscribe(heard)
    registry.get_breaker(USER).reset()
    await heard.have(1)
    (record,) = caplog.records
    assert (record.levelno, record.exc_info[0]) == (logging.ERROR, ValueError)
    assert "user 101" in record.getMessage()


async def test_a_listener_that_failed_hears_the_next_transition(registry: CircuitBreakerRegistry) -> None:
    heard = Heard()

    def fail_after_hearing(user_id: int | None, transition: Transition) -> None:
        heard(user_id, transition)
        raise ValueError

    registry.subscribe(fail_after_hearing)
    for _ in range(3):
        registry.get_breaker(USER).reset()
    assert len(await heard.have(3)) == 3


async def test_a_listener_that_was_cancelled_hears_the_next_transition(
    registry: CircuitBreakerRegistry,
) -> None:
    heard = Heard()

    async def be_cancelled_after_hearing(user_id: int | None, transition: Transition) -> None:
        heard(user_id, transition)
        raise asyncio.CancelledError

    others = Heard()
    registry.subscribe(be_cancelled_after_hearing)
    registry.subscribe(others)
    for _ in range(3):
        registry.get_breaker(USER).reset()
    await others.have(3)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(heard.news) == 3


async def test_a_slow_listener_gets_what_it_missed_afterwards_in_order(
    registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    heard, go_on = Heard(), asyncio.Event()

    async def listen(user_id: int | None, transition: Transition) -> None:
        await go_on.wait()
        heard(user_id, transition)

    registry.subscribe(listen)
    await recover(registry.get_breaker(USER), clock)
    assert heard.news == []
    go_on.set()
    assert await heard.have(3) == RECOVERY


async def test_a_listener_that_is_too_slow_misses_the_newest_and_that_is_said(
    caplog: pytest.LogCaptureFixture, registry: CircuitBreakerRegistry
) -> None:
    go_on, heard = asyncio.Event(), Heard()

    async def listen(user_id: int | None, transition: Transition) -> None:
        await go_on.wait()
        heard(user_id, transition)

    registry.subscribe(listen)
    breaker = registry.get_breaker(USER)
    for _ in range(BACKLOG_LIMIT + 2):
        breaker.reset()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "is too slow and misses" in caplog.text
    go_on.set()
    await heard.have(BACKLOG_LIMIT)


async def test_a_listener_may_reset_the_breaker_it_hears_of(registry: CircuitBreakerRegistry) -> None:
    heard = Heard()

    def reset_what_opens(user_id: int | None, transition: Transition) -> None:
        if transition.kind is Kind.OPENED:
            registry.reset_breaker(user_id or 0)
        heard(user_id, transition)

    registry.subscribe(reset_what_opens)
    await trip(registry.get_breaker(USER))
    assert await heard.have(2) == [Kind.OPENED, Kind.RESET]
    assert await registry.get_breaker(USER).call(succeed) == "sent"


async def test_a_listener_that_resets_at_half_open_makes_the_probe_a_late_one(
    registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    heard = Heard()

    def reset_what_half_opens(user_id: int | None, transition: Transition) -> None:
        if transition.kind is Kind.HALF_OPENED:
            registry.reset_breaker(user_id or 0)
        heard(user_id, transition)

    registry.subscribe(reset_what_half_opens)
    breaker = registry.get_breaker(USER)
    await trip(breaker)
    clock.advance(60)
    probe = await begin(breaker)
    await heard.have(3)
    await probe.fail()
    assert (breaker.state.state, breaker.state.failure_count) == (CircuitState.CLOSED, 0)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin later")
async def test_a_listener_may_reset_the_breaker_where_tasks_begin_at_once(
    registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    heard = Heard()

    def reset_what_half_opens(user_id: int | None, transition: Transition) -> None:
        if transition.kind is Kind.HALF_OPENED:
            registry.reset_breaker(user_id or 0)
        heard(user_id, transition)

    registry.subscribe(reset_what_half_opens)
    breaker = registry.get_breaker(USER)
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    await trip(breaker)
    clock.advance(60)
    assert await breaker.call(succeed) == "sent"
    assert breaker.state.state is CircuitState.CLOSED
    await heard.have(3)


async def test_a_listener_may_call_through_the_breaker_it_hears_of(registry: CircuitBreakerRegistry) -> None:
    answers: list[object] = []
    done = asyncio.Event()

    async def call(user_id: int | None, _transition: Transition) -> None:
        answers.append(await registry.get_breaker(user_id or 0).call(succeed))
        done.set()

    registry.subscribe(call)
    registry.get_breaker(USER).reset()
    await done.wait()
    assert answers == ["sent"]


async def test_one_who_unsubscribes_hears_nothing_more_and_the_others_do(
    registry: CircuitBreakerRegistry,
) -> None:
    leaving, staying = Heard(), Heard()
    unsubscribe = registry.subscribe(leaving)
    registry.subscribe(staying)
    registry.get_breaker(USER).reset()
    await staying.have(1)
    unsubscribe()
    unsubscribe()
    registry.get_breaker(USER).reset()
    await staying.have(2)
    assert len(leaving.news) == 1


async def test_one_who_subscribes_twice_hears_twice_and_may_leave_once(
    registry: CircuitBreakerRegistry,
) -> None:
    heard = Heard()
    unsubscribe = registry.subscribe(heard)
    registry.subscribe(heard)
    registry.get_breaker(USER).reset()
    await heard.have(2)
    unsubscribe()
    registry.get_breaker(USER).reset()
    await heard.have(3)
    assert len(heard.news) == 3


def test_a_listener_is_called_in_one_event_loop_after_another(
    registry: CircuitBreakerRegistry, clock: ManualClock
) -> None:
    heard = Heard()
    registry.subscribe(heard)

    async def reset() -> None:
        registry.get_breaker(USER).reset()
        await heard.have(len(heard.news) + 1)

    asyncio.run(reset())
    asyncio.run(reset())
    assert len(heard.news) == 2


def test_an_async_listener_whose_event_loop_was_closed_under_it_hears_what_comes_in_the_next(
    registry: CircuitBreakerRegistry,
) -> None:
    heard, begun = Heard(), asyncio.Event()

    async def listen(user_id: int | None, transition: Transition) -> None:
        if not begun.is_set():
            begun.set()
            await asyncio.get_running_loop().create_future()
        heard(user_id, transition)

    registry.subscribe(listen)

    async def reset(user_id: int) -> None:
        registry.get_breaker(user_id).reset()
        await begun.wait()

    closed_early = asyncio.new_event_loop()
    closed_early.run_until_complete(reset(1))
    closed_early.close()

    async def reset_and_hear() -> None:
        await reset(2)
        await reset(3)
        await heard.have(2)

    asyncio.run(reset_and_hear())
    assert [user_id for user_id, _ in heard.news] == [2, 3]


async def test_a_breaker_with_no_listeners_makes_no_task(registry: CircuitBreakerRegistry) -> None:
    before = asyncio.all_tasks()
    registry.get_breaker(USER).reset()
    assert asyncio.all_tasks() == before
