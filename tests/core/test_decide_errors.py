"""An error may open the breaker at once, and an answer may say nothing of the bot."""

from __future__ import annotations

import pytest

from breaker_store.core.events import (
    PERMANENT_REASON,
    CircuitState,
    Kind,
    ProbeAbandoned,
    Verdict,
)
from breaker_store.core.policy import Policy
from breaker_store.core.rebuild import rebuild
from tests.core.scenario import SECOND, Scenario, kinds, outcome_in, transition_in


class TestOpeningAtOnce:
    @pytest.mark.parametrize("failures", [0, 1, 4])
    def test_a_permanent_error_opens_a_closed_breaker_however_few_failures_came_before(
        self, failures: int
    ) -> None:
        breaker = Scenario()
        for _ in range(failures):
            breaker.fail()
        breaker.fail_for_good()
        opened = transition_in(breaker.last)
        assert kinds(breaker.last) == [Kind.FAILURE, Kind.OPENED]
        assert (opened.reason, opened.failure_count) == (PERMANENT_REASON, failures + 1)
        assert [cause.error_type for cause in opened.causes] == ["TimeoutError"] * failures + ["Unauthorized"]
        assert (opened.is_trip, opened.opened_at_once) == (True, True)
        assert opened.retry_at == breaker.now + 60 * SECOND

    def test_it_opens_a_half_open_one_again_whatever_other_probes_do(self) -> None:
        breaker = Scenario(Policy(half_open_max_calls=2))
        first, second = breaker.half_opened(), breaker.admitted()
        breaker.fail_for_good(first)
        opened = transition_in(breaker.last)
        assert (opened.is_trip, opened.opened_at_once, opened.from_state) == (
            False, True, CircuitState.HALF_OPEN,
        )  # fmt: skip
        breaker.succeed(second)
        assert outcome_in(breaker.last).verdict is Verdict.NOT_COUNTED
        assert breaker.state.state is CircuitState.OPEN

    def test_one_that_comes_late_opens_nothing(self) -> None:
        breaker = Scenario()
        late = breaker.admitted()
        breaker.reset().fail_for_good(late)
        assert (kinds(breaker.last), breaker.state.calm) == ([Kind.FAILURE], True)

    def test_an_opening_by_failures_in_a_row_is_none_at_once(self) -> None:
        assert not transition_in(Scenario().opened().last).opened_at_once

    def test_it_waits_and_recovers_as_any_other(self) -> None:
        breaker = Scenario().fail_for_good()
        assert breaker.admit() is None
        breaker.wait(60).succeed().succeed()
        assert breaker.state.calm


class TestNotCounting:
    @pytest.mark.parametrize("failures", [0, 1, 4])
    def test_an_answer_that_calls_come_too_fast_leaves_the_run_of_failures_as_it_is(
        self, failures: int
    ) -> None:
        breaker = Scenario()
        for _ in range(failures):
            breaker.fail()
        before = breaker.state
        breaker.come_too_fast()
        answer = outcome_in(breaker.last)
        assert (answer.kind, answer.verdict, answer.error_type) == (
            Kind.SUCCESS, Verdict.NOT_COUNTED, "http.TooManyRequests",
        )  # fmt: skip
        assert breaker.state is before
        assert not answer.is_success

    def test_a_probe_that_is_answered_so_gives_its_slot_back_and_counts_as_nothing(self) -> None:
        breaker = Scenario()
        probe = breaker.half_opened()
        breaker.come_too_fast(probe)
        assert breaker.last[1:] == (ProbeAbandoned(probe.probe),)
        assert (breaker.state.success_count, breaker.state.probes) == (0, ())
        assert breaker.admitted().probe == 2

    def test_what_is_not_counted_is_not_counted_in_a_rebuild_either(self) -> None:
        breaker = Scenario().fail().come_too_fast().fail()
        probe = breaker.wait(1).fail_for_good().wait(60).admitted()
        breaker.come_too_fast(probe).succeed()
        rebuilt = rebuild(breaker.default_policy, breaker.stored)
        assert rebuilt == breaker.state.without_calls_in_flight()
        assert rebuilt.success_count == 1

    def test_a_late_one_is_recorded_alone(self) -> None:
        breaker = Scenario()
        probe = breaker.half_opened()
        breaker.reset().come_too_fast(probe)
        assert kinds(breaker.last) == [Kind.SUCCESS]
