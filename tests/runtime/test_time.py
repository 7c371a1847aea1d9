"""Waits run on the monotonic clock, and the wall clock is read once (DESIGN rules 6 and 7)."""

from __future__ import annotations

import time

import pytest

from breaker_store import CircuitBreaker, CircuitBreakerOpenError
from breaker_store.runtime.clock import Clock, ManualClock
from tests.runtime.driving import SECOND, START, fail_times, succeed, trip

HOUR_NS = 3_600_000_000_000


class Machine:
    """A machine with a monotonic clock and a wall clock that somebody sets."""

    def __init__(self) -> None:
        self.monotonic_ns = 5_000_000_000_000
        self.wall_ns = START * 1_000

    def go_on(self, seconds: float) -> None:
        self.monotonic_ns += round(seconds * 1e9)
        self.wall_ns += round(seconds * 1e9)

    def read_monotonic(self) -> int:
        return self.monotonic_ns

    def read_wall(self) -> int:
        return self.wall_ns


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Put a machine's wall clock in the place of the real one."""
    machine = Machine()
    monkeypatch.setattr(time, "time_ns", machine.read_wall)
    monkeypatch.setattr(time, "time", lambda: machine.read_wall() / 1e9)
    return machine


@pytest.mark.parametrize("step_ns", [HOUR_NS, -HOUR_NS])
async def test_a_step_of_the_wall_clock_neither_lengthens_nor_skips_a_wait(
    machine: Machine, step_ns: int
) -> None:
    breaker = CircuitBreaker(clock=Clock(machine.read_monotonic))
    await trip(breaker)
    machine.go_on(10)
    machine.wall_ns += step_ns
    assert breaker.get_state()["timeout_remaining"] == 50.0
    machine.go_on(49.999999)
    with pytest.raises(CircuitBreakerOpenError) as refused:
        await breaker.call(succeed)
    assert refused.value.timeout_remaining == 0.000001
    machine.go_on(0.000001)
    assert await breaker.call(succeed) == "sent"


@pytest.mark.parametrize("step_ns", [HOUR_NS, -HOUR_NS])
async def test_a_step_of_the_wall_clock_does_not_move_times_that_are_told(
    machine: Machine, step_ns: int
) -> None:
    breaker = CircuitBreaker(clock=Clock(machine.read_monotonic))
    machine.wall_ns += step_ns
    machine.go_on(5)
    await fail_times(breaker, 1)
    assert breaker.get_state()["last_failure_time"] == START / SECOND + 5


@pytest.mark.parametrize("step_ns", [HOUR_NS, -HOUR_NS])
async def test_a_step_of_the_wall_clock_does_not_take_a_probes_slot(machine: Machine, step_ns: int) -> None:
    breaker = CircuitBreaker(clock=Clock(machine.read_monotonic))
    await trip(breaker)
    machine.go_on(60)

    async def step_and_come_again() -> None:
        machine.wall_ns += step_ns
        with pytest.raises(CircuitBreakerOpenError):
            await breaker.call(succeed)

    await breaker.call(step_and_come_again)
    assert breaker.state.success_count == 1


def test_the_clock_begins_at_the_wall_clocks_time_and_follows_the_monotonic_one(machine: Machine) -> None:
    clock = Clock(machine.read_monotonic)
    assert clock.now_us() == START
    machine.wall_ns += HOUR_NS
    machine.monotonic_ns += 1_999
    assert clock.now_us() == START + 1


def test_a_clock_that_is_told_its_time_does_not_read_the_wall_clock(machine: Machine) -> None:
    assert Clock(machine.read_monotonic, unix_us=7).now_us() == 7


def test_a_clock_of_no_arguments_reads_like_unix_time() -> None:
    assert abs(Clock().now_us() - time.time_ns() // 1_000) < 10 * SECOND


def test_a_manual_clock_stands_still_until_it_is_told_to_go_on() -> None:
    clock = ManualClock(START)
    assert [clock.now_us(), clock.now_us()] == [START, START]
    clock.advance(59.999999)
    assert clock.now_us() == START + 59_999_999
    clock.advance(0)
    with pytest.raises(ValueError, match="does not run backwards"):
        clock.advance(-0.000001)
    assert clock.now_us() == START + 59_999_999


async def test_the_wait_runs_from_the_end_of_the_call_that_failed() -> None:
    clock = ManualClock(START)
    breaker = CircuitBreaker(1, clock=clock)

    async def take_a_minute_to_fail() -> None:
        clock.advance(60)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        await breaker.call(take_a_minute_to_fail)
    assert breaker.get_state()["timeout_remaining"] == 60.0


async def test_no_wait_at_all_lets_the_next_call_try() -> None:
    breaker = CircuitBreaker(timeout_seconds=0, clock=ManualClock())
    await trip(breaker)
    assert await breaker.call(succeed) == "sent"
    assert breaker.get_state()["state"] == "half_open"
