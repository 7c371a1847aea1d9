"""Calls whose end is told by hand, and what an error means to whom."""

from __future__ import annotations

import asyncio

import pytest

from breaker_store import CircuitBreakerOpenError, Policy
from breaker_store.core.events import (
    PERMANENT_REASON,
    CircuitState,
    Kind,
    Outcome,
    Verdict,
)
from breaker_store.core.failures import BadAnswer, Category, FailureTable
from breaker_store.failures import HTTP
from breaker_store.runtime.calls import read_error
from breaker_store.runtime.protected_call import ProtectedCall
from tests.runtime.driving import (
    NoAnswerError,
    Recording,
    fail_times,
    half_open,
    succeed,
    transitions,
    trip,
)


class RefusedError(NoAnswerError):
    pass


def outcomes(recording: Recording) -> list[Outcome]:
    return [event for event in recording.events() if isinstance(event, Outcome)]


async def test_the_end_of_a_call_is_recorded_with_its_operation_attempt_and_duration(
    recording: Recording,
) -> None:
    call = recording.breaker.begin("sendMessage", attempt=2)
    recording.clock.advance(0.25)
    await call.end(NoAnswerError("no answer"))
    [outcome] = outcomes(recording)
    assert (outcome.kind, outcome.operation, outcome.attempt) == (Kind.FAILURE, "sendMessage", 2)
    assert outcome.duration_us == 250_000


async def test_a_call_that_ends_without_an_error_went_well(recording: Recording) -> None:
    await recording.breaker.begin().end()
    await recording.breaker.begin("getMe", attempt=3).end()
    first, again = outcomes(recording)
    assert (first.kind, first.operation, first.attempt) == (Kind.SUCCESS, None, None)
    assert (again.kind, again.operation, again.attempt) == (Kind.SUCCESS, "getMe", 3)


async def test_operation_attempt_and_table_can_be_told_until_the_end(recording: Recording) -> None:
    call = recording.breaker.begin()
    call.operation, call.attempt, call.failures = "getUpdates", 4, HTTP
    await call.end(BadAnswer(None, 404))
    [outcome] = outcomes(recording)
    assert (outcome.kind, outcome.operation, outcome.attempt) == (Kind.SUCCESS, "getUpdates", 4)
    assert (outcome.error_type, outcome.error_message) == ("http.NotFound", "404 Not Found")


async def test_a_second_end_is_passed_over(recording: Recording) -> None:
    ended: list[BaseException | None] = []
    call = recording.breaker.begin()
    call.when_ended(ended.append)
    error = NoAnswerError()
    await call.end(error)
    await call.end()
    await call.end(NoAnswerError())
    assert (recording.kinds(), ended) == ([Kind.FAILURE], [error])
    assert recording.breaker.state.failure_count == 1


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()])
async def test_a_cancelled_probe_is_no_outcome_and_gives_its_slot_back(
    recording: Recording, error: BaseException
) -> None:
    breaker = recording.breaker
    await trip(breaker)
    recording.clock.advance(60)
    probe = breaker.begin()
    with pytest.raises(CircuitBreakerOpenError):
        breaker.begin()
    recording.events()
    await probe.end(error)
    assert recording.events() == []
    await breaker.begin().end()
    assert breaker.state.success_count == 1


async def test_a_probe_that_is_told_to_slow_down_gives_its_slot_back_and_is_recorded(
    recording: Recording,
) -> None:
    breaker = recording.breaker
    await trip(breaker)
    recording.clock.advance(60)
    probe = breaker.begin(failures=HTTP)
    recording.events()
    await probe.end(BadAnswer(None, 429))
    [outcome] = outcomes(recording)
    assert (outcome.verdict, outcome.error_type) == (Verdict.NOT_COUNTED, "http.TooManyRequests")
    await breaker.begin().end()
    assert breaker.state.success_count == 1


async def test_a_call_is_refused_before_it_begins(recording: Recording) -> None:
    await trip(recording.breaker)
    with pytest.raises(CircuitBreakerOpenError):
        recording.breaker.begin()


class TestProtecting:
    async def test_what_the_function_gives_is_given_and_its_success_recorded(
        self, recording: Recording
    ) -> None:
        async def func(call: ProtectedCall) -> str:
            return f"sent by {call.operation}"

        assert await recording.breaker.protect(func, operation="sendMessage") == "sent by sendMessage"
        [outcome] = outcomes(recording)
        assert (outcome.kind, outcome.operation) == (Kind.SUCCESS, "sendMessage")

    async def test_what_the_function_raises_is_raised_and_read_by_the_table(
        self, recording: Recording
    ) -> None:
        error = BadAnswer(None, 403)

        async def func(_call: ProtectedCall) -> None:
            raise error

        with pytest.raises(BadAnswer) as raised:
            await recording.breaker.protect(func, failures=HTTP)
        assert raised.value is error
        [outcome] = outcomes(recording)
        assert (outcome.kind, outcome.error_type) == (Kind.SUCCESS, "http.Forbidden")

    async def test_a_function_that_is_refused_is_not_called(self, recording: Recording) -> None:
        await trip(recording.breaker)
        called: list[ProtectedCall] = []

        async def func(call: ProtectedCall) -> None:
            called.append(call)

        with pytest.raises(CircuitBreakerOpenError):
            await recording.breaker.protect(func)
        assert not called

    async def test_a_call_that_is_left_open_ends_when_it_is_told(self, recording: Recording) -> None:
        async def func(call: ProtectedCall) -> ProtectedCall:
            call.leave_open()
            return call

        call = await recording.breaker.protect(func)
        assert (recording.events(), call.is_left_open) == ([], True)
        recording.clock.advance(3)
        await call.end(NoAnswerError("broke off"))
        [outcome] = outcomes(recording)
        assert (outcome.kind, outcome.duration_us) == (Kind.FAILURE, 3_000_000)

    async def test_an_error_of_a_function_that_had_left_its_call_open_ends_it(
        self, recording: Recording
    ) -> None:
        async def func(call: ProtectedCall) -> None:
            call.leave_open()
            raise NoAnswerError

        with pytest.raises(NoAnswerError):
            await recording.breaker.protect(func)
        assert recording.kinds() == [Kind.FAILURE]

    async def test_a_function_may_end_its_call_itself(self, recording: Recording) -> None:
        async def func(call: ProtectedCall) -> str:
            await call.end(NoAnswerError())
            return "told apart"

        assert await recording.breaker.protect(func) == "told apart"
        assert recording.kinds() == [Kind.FAILURE]

    async def test_cancellation_is_no_outcome_and_frees_a_probes_slot(self, recording: Recording) -> None:
        breaker = recording.breaker
        await trip(breaker)
        recording.clock.advance(60)
        entered = asyncio.Event()

        async def func(_call: ProtectedCall) -> None:
            entered.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(breaker.protect(func))
        await entered.wait()
        recording.events()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (recording.events(), breaker.state.probes) == ([], ())


class TestRefusingBeforehand:
    async def test_a_closed_breaker_refuses_nothing_and_records_nothing(self, recording: Recording) -> None:
        await fail_times(recording.breaker, 4)
        recording.events()
        recording.breaker.refuse_if_blocked()
        assert recording.events() == []

    async def test_an_open_one_refuses_as_a_call_would_be_refused(self, recording: Recording) -> None:
        breaker = recording.breaker
        await trip(breaker)
        recording.clock.advance(20)
        recording.events()
        with pytest.raises(CircuitBreakerOpenError) as beforehand:
            breaker.refuse_if_blocked()
        [rejected] = outcomes(recording)
        assert (rejected.kind, rejected.count) == (Kind.REJECTED, 1)
        with pytest.raises(CircuitBreakerOpenError) as refused:
            await breaker.call(succeed)
        assert vars(beforehand.value) == vars(refused.value)
        assert beforehand.value.timeout_remaining == 40.0

    async def test_one_whose_wait_is_over_takes_no_slot_and_does_not_change(
        self, recording: Recording
    ) -> None:
        breaker = recording.breaker
        await trip(breaker)
        recording.clock.advance(60)
        recording.events()
        before = breaker.state
        breaker.refuse_if_blocked()
        assert (recording.events(), breaker.state) == ([], before)
        assert await breaker.call(succeed) == "sent"

    async def test_a_half_open_one_refuses_while_its_slots_are_taken(self, recording: Recording) -> None:
        breaker = recording.breaker
        probe = await half_open(breaker, recording.clock)
        recording.events()
        with pytest.raises(CircuitBreakerOpenError) as refused:
            breaker.refuse_if_blocked()
        assert (recording.kinds(), refused.value.timeout_remaining) == ([Kind.REJECTED], 0.0)
        await probe.succeed()
        breaker.refuse_if_blocked()

    async def test_one_that_is_forced_open_without_an_end_refuses_for_ever(
        self, recording: Recording
    ) -> None:
        recording.breaker.force_open()
        with pytest.raises(CircuitBreakerOpenError) as refused:
            recording.breaker.refuse_if_blocked()
        assert refused.value.timeout_remaining is None


TABLE = FailureTable(
    {NoAnswerError: Category.TRANSIENT, RefusedError: Category.DECLINED, "ValueError": Category.PERMANENT,
     "KeyError": Category.RATE_LIMITED}
)  # fmt: skip


class TestWhoseWordHolds:
    @pytest.mark.parametrize(
        ("error", "category"),
        [
            (NoAnswerError(), Category.TRANSIENT),
            (RefusedError(), Category.DECLINED),
            (ValueError(), Category.PERMANENT),
            (KeyError(), Category.RATE_LIMITED),
            (OSError(), Category.UNKNOWN),
        ],
    )
    def test_a_policy_that_names_nothing_leaves_it_to_the_table(
        self, error: Exception, category: Category
    ) -> None:
        assert read_error(error, Policy(), TABLE).category is category

    @pytest.mark.parametrize(
        ("error", "category"),
        [
            (NoAnswerError(), Category.DECLINED),
            (ValueError(), Category.DECLINED),
            (RefusedError(), Category.DECLINED),
            (KeyError(), Category.RATE_LIMITED),
        ],
    )
    def test_what_a_policy_ignores_is_no_failure_whatever_the_table_says(
        self, error: Exception, category: Category
    ) -> None:
        policy = Policy(ignored_errors=(NoAnswerError, ValueError, KeyError))
        assert read_error(error, policy, TABLE).category is category

    @pytest.mark.parametrize(
        ("error", "category"),
        [
            (RefusedError(), Category.UNKNOWN),
            (KeyError(), Category.UNKNOWN),
            (ValueError(), Category.PERMANENT),
            (NoAnswerError(), Category.DECLINED),
            (OSError(), Category.DECLINED),
        ],
    )
    def test_what_a_policy_counts_is_a_failure_whatever_the_table_says_and_nothing_else_is(
        self, error: Exception, category: Category
    ) -> None:
        policy = Policy(counted_errors=(RefusedError, KeyError, ValueError))
        assert read_error(error, policy, TABLE).category is category

    def test_the_name_and_the_wait_of_an_error_stay_what_the_table_reads(self) -> None:
        error = BadAnswer(None, 429, {"Retry-After": "7"})
        ignored, counted = (
            read_error(error, policy, HTTP)
            for policy in (Policy(ignored_errors=(BadAnswer,)), Policy(counted_errors=(BadAnswer,)))
        )
        assert (ignored.category, counted.category) == (Category.RATE_LIMITED, Category.UNKNOWN)
        assert ignored[1:] == counted[1:] == ("http.TooManyRequests", 7.0)


class TestErrorsOfATable:
    @pytest.fixture
    def recording(self) -> Recording:
        recording = Recording()
        recording.registry.surroundings.failures = HTTP
        return recording

    async def test_a_revoked_token_opens_the_breaker_at_once(self, recording: Recording) -> None:
        await answer(recording, 503)
        await answer(recording, 401)
        events = recording.events()
        [opened] = transitions(events)
        assert (opened.kind, opened.reason, opened.failure_count) == (Kind.OPENED, PERMANENT_REASON, 2)
        assert [cause.error_type for cause in opened.causes] == [
            "http.ServiceUnavailable",
            "http.Unauthorized",
        ]
        with pytest.raises(CircuitBreakerOpenError, match=r"failure: http\.Unauthorized: 401 "):
            await recording.breaker.call(succeed)

    async def test_a_blocked_bot_or_a_bad_request_ends_a_run_of_failures(self, recording: Recording) -> None:
        for status in (503, 403):
            await answer(recording, status)
        assert recording.breaker.state.calm

    async def test_calls_that_come_too_fast_neither_add_to_a_run_of_failures_nor_end_it(
        self, recording: Recording
    ) -> None:
        for status in (503, 429, 503, 429, 503, 503):
            await answer(recording, status)
        assert recording.breaker.state.failure_count == 4
        await answer(recording, 503)
        assert recording.breaker.state.state is CircuitState.OPEN
        assert recording.verdicts() == [
            Verdict.NOT_COUNTED if status == 429 else Verdict.COUNTED
            for status in (503, 429, 503, 429, 503, 503, 503)
        ]

    async def test_a_table_that_a_call_brings_comes_before_the_registrys(self, recording: Recording) -> None:
        await answer(recording, 401, HTTP | {401: Category.DECLINED})
        assert recording.breaker.state.calm

    async def test_a_revoked_token_reopens_a_half_open_breaker(self, recording: Recording) -> None:
        await answer(recording, 401)
        recording.clock.advance(60)
        await answer(recording, 401)
        opened = transitions(recording.events())[-1]
        assert (opened.from_state, opened.opened_at_once) == (CircuitState.HALF_OPEN, True)


async def answer(recording: Recording, status: int, failures: FailureTable | None = None) -> None:
    """Have a call be answered with this status."""

    async def func(_call: ProtectedCall) -> None:
        raise BadAnswer(None, status)

    with pytest.raises(BadAnswer):
        await recording.breaker.protect(func, failures=failures)
